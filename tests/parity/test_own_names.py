"""Exported modules whose inputs, outputs and weights are called as what the graph makes up itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import loopedge
from loopedge.errors import InputError
from loopedge.model.contract import Tensors
from tests.parity.models import Sizes, make_inputs, make_model, relative_error
from tests.parity.small import WIDTH, Small

NAMES = ("condition", "state.0", "core/state.0", "loopedge.true")


class Named(Small):
    """Four inputs that go through as context, called as values of the Loop and of its body."""

    input_names = NAMES
    output_names = ("iteration", "core/condition")

    def example_inputs(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(2, 7, WIDTH, generator=generator) for _ in NAMES)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        return self.linear(inputs[0]), inputs

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        first, second, third, fourth = context
        moved: Tensor = torch.tanh(self.linear(state) + first * second + third - fourth)
        return moved

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        assert isinstance(state, Tensor)
        return state, state + context[1]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_inputs_and_outputs_keep_names_that_the_graph_uses_itself(
    form: str, tmp_path: Path
) -> None:
    model = Named().eval()
    path = tmp_path / "model.onnx"
    loopedge.export(model, path, form=form)  # type: ignore[arg-type]
    inputs = tuple(torch.randn(3, 5, WIDTH) for _ in NAMES)
    feeds = {name: value.numpy() for name, value in zip(NAMES, inputs, strict=True)}
    with torch.no_grad():
        expected = model(*inputs)
    given = loopedge.Session(path).run(feeds)
    assert list(given) == list(model.output_names)
    for name, exact in zip(model.output_names, expected, strict=True):
        assert relative_error(given[name], exact.numpy()) < 1e-5


@pytest.mark.parametrize("name", ["loops", "tolerance", "iterations"])
def test_names_of_the_options_of_a_graph_are_refused(name: str, tmp_path: Path) -> None:
    model = Small()
    object.__setattr__(model, "input_names", (name,))
    with pytest.raises(InputError, match=f"holds {name}, which the graph needs itself"):
        loopedge.export(model, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_tied_head_with_an_exit_whose_blocks_are_filled_up(tmp_path: Path) -> None:
    """The exit compares with a zero (), the cut of a filled table starts at a zero (1,)."""
    model = make_model("tokens", d_model=40)
    source, target = tmp_path / "model.onnx", tmp_path / "q.onnx"
    loopedge.export(model, source, exit="tolerance=0.001")
    loopedge.quantize(source, target, scheme="weight-int8")
    (ids,), feeds = make_inputs(model, Sizes(2, 9))
    given = loopedge.Session(target).run(feeds, tolerance=0.0)["logits"]
    with torch.no_grad():
        exact = model(ids)
    assert isinstance(exact, Tensor)
    assert np.linalg.norm(given - exact.numpy()) < 0.03 * np.linalg.norm(exact.numpy())
