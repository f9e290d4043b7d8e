"""Inputs of several lengths: which axes are one, which are lengths of their own, which are sums of others."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.errors import InputError
from loopedge.exporter.capture.input_axes import read_dynamic_shapes, tell_apart
from loopedge.graph.inputs import generate_inputs
from loopedge.model.contract import Tensors
from tests.cli.in_process import run_words
from tests.parity.models import relative_error
from tests.parity.small import WIDTH, Small


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


class PastAndNew(Small):
    """New positions attend to past ones, which are not looped."""

    def example_inputs(self) -> tuple[Tensor, ...]:
        return noise(2, 5, WIDTH), noise(2, 4, WIDTH)

    def prelude(self, x: Tensor, past: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x, past

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        both = torch.cat([context, state], dim=1)
        weights = (state @ both.transpose(1, 2)).softmax(-1)
        return torch.tanh(self.linear(weights @ both))


class MaskedPast(PastAndNew):
    """A mask over past and new positions: as long as both."""

    def example_inputs(self) -> tuple[Tensor, ...]:
        return noise(2, 5, WIDTH), noise(2, 4, WIDTH), torch.ones(2, 9)

    def prelude(self, x: Tensor, past: Tensor, kept: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x, (past, kept)

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        past, kept = context
        both = torch.cat([past, state], dim=1)
        weights = (state @ both.transpose(1, 2) + kept[:, None]).softmax(-1)
        return torch.tanh(self.linear(weights @ both))


def shapes(path: Path) -> dict[str, Any]:
    return {node.name: node.shape for node in ort.InferenceSession(str(path)).get_inputs()}


def check(model: Small, path: Path, *inputs: Tensor) -> None:
    """Run a file in ONNX Runtime alone, and the module, on inputs of any sizes."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    with torch.no_grad():
        assert relative_error(session.run(None, feeds)[0], model(*inputs).numpy()) < 1e-5


@pytest.mark.slow
def test_past_and_new_positions_have_lengths_of_their_own(tmp_path: Path) -> None:
    model = PastAndNew().eval()
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert shapes(Path(result.path)) == {
        "inputs": ["batch", "sequence", WIDTH],
        "past": ["batch", "past_sequence", WIDTH],
    }
    for new, past in ((5, 4), (4, 5), (1, 30), (7, 7)):
        check(model, Path(result.path), noise(3, new, WIDTH), noise(3, past, WIDTH))
    made = generate_inputs(open_artifact(result.path), batch=2, sequence=6)
    assert made["past"].shape == (2, 6, WIDTH)


@pytest.mark.slow
def test_a_mask_over_both_is_as_long_as_their_sum(tmp_path: Path) -> None:
    model = MaskedPast().eval()
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert shapes(Path(result.path))["kept"] == ["batch", "sequence + past_sequence"]
    for new, past in ((5, 4), (2, 11)):
        kept = noise(2, new + past)
        check(model, Path(result.path), noise(2, new, WIDTH), noise(2, past, WIDTH), kept)
    made = generate_inputs(open_artifact(result.path), batch=2, sequence=6)
    assert made["kept"].shape[1] == made["inputs"].shape[1] + made["past"].shape[1]


def told(*sizes: tuple[int, ...], runs: Any, tied: frozenset[int] = frozenset()) -> list[Any]:
    names = "abcdef"[: len(sizes)]
    example = tuple(torch.zeros(size) for size in sizes)
    return list(tell_apart(example, names, lambda given: runs(*(x.shape for x in given)), tied))


BOTH = {0: "batch", 1: "sequence"}


def test_axes_are_told_apart_by_what_runs() -> None:
    def same(a: Any, b: Any) -> bool:
        return bool(a == b)

    def rows(a: Any, b: Any) -> bool:
        return bool(a[0] == b[0])

    assert told((2, 7), runs=lambda a: True) == [BOTH]
    assert told((2, 7), (2, 7), runs=same) == [BOTH, BOTH]
    assert told((2, 5), (2, 4), runs=rows) == [BOTH, {0: "batch", 1: "b_sequence"}]
    assert told((2, 5), (2, 5), runs=rows) == [BOTH, {0: "batch", 1: "b_sequence"}]
    assert told((2, 5), (2, 5), runs=rows, tied=frozenset({1})) == [BOTH, BOTH]
    assert told((2, 5), (2,), runs=rows) == [BOTH, {0: "batch"}]
    # A table of ten rows, of which it looks up some: its rows are not the batch.
    assert told((2, 5), (10, 3), runs=lambda a, b: b[0] > 9 and b[1] == 3) == [BOTH, {}]
    # Keys and values of the past: one length.
    pair = told((2, 5), (2, 4), (2, 4), runs=lambda a, b, c: a[0] == b[0] and b == c)
    assert pair == [BOTH, *[{0: "batch", 1: "b_sequence"}] * 2]
    # One row for all: broadcast, so its axis stays at one.
    assert told((2, 5), (1, 5), runs=lambda a, b: b[0] in {1, a[0]} and a[1] == b[1]) == [
        BOTH,
        {1: "sequence"},
    ]


def test_twice_the_length_is_a_sum_too() -> None:
    found = told((2, 5), (2, 10), runs=lambda a, b: a[0] == b[0] and 2 * a[1] == b[1])
    assert found == [BOTH, {0: "batch", 1: "sequence + sequence"}]


@pytest.mark.slow
def test_a_class_attribute_names_the_axes(tmp_path: Path) -> None:
    class Named(PastAndNew):
        dynamic_shapes = ({0: "batch", 1: "sequence"}, {0: "batch"})

    model = Named().eval()
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert shapes(Path(result.path))["past"] == ["batch", 4, WIDTH]
    check(model, Path(result.path), noise(3, 6, WIDTH), noise(3, 4, WIDTH))
    keyword = loopedge.export(
        model, tmp_path / "other.onnx", dynamic_shapes={"past": {0: "batch", 1: "past"}}
    )
    assert shapes(Path(keyword.path))["past"] == ["batch", "past", WIDTH]


def make() -> PastAndNew:
    return PastAndNew()


@pytest.mark.slow
def test_the_command_line_names_the_axes(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    command = ["export", "tests.parity.test_input_axes:make", "-o", str(target)]
    result = run_words([*command, "--dynamic-shapes", "past=batch,past,-"])
    assert result.code == 0, result.err
    assert shapes(target)["past"] == ["batch", "past", WIDTH]
    for wrong in ("past", "other=batch", "past=batch,past,-,x"):
        result = run_words([*command, "--force", "--dynamic-shapes", wrong])
        assert (result.code, "dynamic" in result.err) == (2, True)


def test_names_are_read_from_text() -> None:
    given = read_dynamic_shapes(["x=batch,sequence", "m=batch,a  +  b,-"])
    assert given == {"x": BOTH, "m": {0: "batch", 1: "a + b"}}
    assert read_dynamic_shapes([]) is None
    with pytest.raises(InputError, match="twice"):
        read_dynamic_shapes(["x=batch", "x=batch"])


@pytest.mark.slow
@pytest.mark.parametrize("asked", [600, 10**9, 3, 2, 0, -5])
def test_a_count_is_clamped_without_timestep_tables_too(
    asked: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The file runs 1 to 3 iterations whatever is asked for: judged by PyTorch's own run of so many."""
    path = tmp_path_factory.getbasetemp() / "counted.onnx"
    model = Small().eval()
    if not path.exists():
        result = loopedge.export(model, path, dynamic_loops=True)
        assert loopedge.inspect(result.path).metadata["max_loops"] == 3
    x = noise(2, 6, WIDTH)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {"inputs": x.numpy(), "loops": np.array(asked, np.int64)}
    with torch.no_grad():
        expected = model(x, loops=min(max(asked, 1), 3)).numpy()
    assert relative_error(session.run(None, feeds)[0], expected) < 1e-5
