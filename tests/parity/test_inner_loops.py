"""Loops inside the core: written out in the body, or Loops of their own, one or two deep."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import loopedge
from loopedge.errors import InputError
from loopedge.graph.core.view import view_core
from loopedge.model.contract import Tensors
from tests.parity.models import relative_error

WIDTH, INNER, DEEPEST = 8, 4, 2
Kind = Literal["loop", "unrolled"]


class Refiner(loopedge.LoopedModule):
    """Two states: a slow one, and a fast one that an inner loop refines by rows of its own."""

    input_names = ("inputs",)

    def __init__(self, *, deep: bool = False, loops: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.loops, self.deep = loops, deep
        self.fast, self.slow = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.deepest = nn.Linear(WIDTH, WIDTH)
        self.steps = nn.Parameter(torch.randn(8, INNER, WIDTH))

    def example_inputs(self) -> tuple[Tensor]:
        return (torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(0)),)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        (x,) = inputs
        return (x, torch.zeros_like(x)), x  # the input is a state and the context

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        slow, fast = state
        assert isinstance(context, Tensor)
        fast = loopedge.inner_loop(
            self.refine, INNER, fast, (slow, context), {"step": row["steps"]}
        )
        assert isinstance(fast, Tensor)
        moved: Tensor = torch.tanh(self.slow(slow + fast))
        return moved, fast

    def refine(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        slow, injected = context
        assert isinstance(state, Tensor)
        x = torch.tanh(self.fast(state + slow) + injected + row["step"])
        if self.deep:
            deep = loopedge.inner_loop(self.deepen, DEEPEST, (x,), (slow,))
            (x,) = deep
        return x

    def deepen(
        self, state: tuple[Tensor], context: tuple[Tensor], row: dict[str, Tensor]
    ) -> tuple[Tensor]:
        ((x,), (slow,)) = state, context
        return (x + torch.tanh(self.deepest(x * slow)),)

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return state[0] + state[1]

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        return {"steps": self.steps[:loops]}


def run(path: Path, x: Tensor) -> Any:
    return loopedge.Session(path, threads=1).run({"inputs": x.numpy()})["outputs"]


@pytest.mark.long
@pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("inner", ["loop", "unrolled"])
def test_inner_loops_agree(inner: Kind, deep: bool, tmp_path: Path) -> None:
    model = Refiner(deep=deep).eval()
    result = loopedge.export(model, tmp_path / "model.onnx", inner=inner)
    onnx.checker.check_model(result.path, full_check=True)
    x = torch.randn(3, 11, WIDTH)
    with torch.no_grad():
        assert relative_error(run(Path(result.path), x), model(x).numpy()) < 1e-5

    graph = ir.load(result.path)
    assert view_core(graph).form == "loop"
    assert len(view_core(graph).inner_loops) == (0 if inner == "unrolled" else 2 if deep else 1)
    nested = [node for node in graph.graph.all_nodes() if node.op_type == "Loop"]
    assert len(nested) == (1 if inner == "unrolled" else 3 if deep else 2)
    assert not any(body.initializers for body in graph.graph.subgraphs())
    uses = {weight.name: weight.uses for weight in result.tied_weights}
    assert uses["slow.weight"] == 3
    assert uses["fast.weight"] == 3 * INNER
    if deep:
        assert uses["deepest.weight"] == 3 * INNER * DEEPEST


@pytest.mark.long
def test_what_does_not_depend_on_the_loops_leaves_them(tmp_path: Path) -> None:
    class Invariant(Refiner):
        def refine(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            slow, injected = context
            assert isinstance(state, Tensor)
            moved: Tensor = torch.tanh(state + slow) + self.fast(injected) + row["step"]
            return moved

    result = loopedge.export(Invariant().eval(), tmp_path / "model.onnx", inner="loop")
    main = [node.op_type for node in ir.load(result.path).graph]
    assert main.count("MatMul") == 1  # fast(injected) runs once, not 3 * INNER times


@pytest.mark.long
def test_the_unrolled_form_writes_inner_loops_out(tmp_path: Path) -> None:
    model = Refiner(deep=True).eval()
    result = loopedge.export(model, tmp_path / "model.onnx", form="unrolled")
    graph = ir.load(result.path).graph
    products = [node for node in graph.all_nodes() if node.op_type == "MatMul"]
    assert len(products) == 3 * (1 + INNER * (1 + DEEPEST))
    assert not list(graph.subgraphs())
    with pytest.raises(InputError, match="an unrolled graph holds no Loop"):
        loopedge.export(model, tmp_path / "other.onnx", form="unrolled", inner="loop")


@pytest.mark.long
def test_weights_are_stored_once(tmp_path: Path) -> None:
    model = Refiner().eval()
    for inner in ("loop", "unrolled"):
        result = loopedge.export(model, tmp_path / f"{inner}.onnx", inner=inner)
        used = [model.fast.weight, model.fast.bias, model.slow.weight]
        assert result.weight_bytes == 4 * sum(weight.numel() for weight in used)


@pytest.mark.long
def test_inner_loops_are_written_out_to_be_quantized(tmp_path: Path) -> None:
    model = Refiner().eval()
    nested = loopedge.export(model, tmp_path / "nested.onnx", inner="loop")
    with pytest.raises(InputError, match=r"inner Loop core/inner.0") as caught:
        loopedge.quantize(nested.path, tmp_path / "nested.int8.onnx")
    assert caught.value.hint == "loopedge export model.pt --inner unrolled"
    flat = loopedge.export(model, tmp_path / "flat.onnx")
    result = loopedge.quantize(flat.path, tmp_path / "flat.int8.onnx", scheme="dynamic")
    assert result.matmuls["quantized"] == INNER + 1
    assert result.source_weight_bytes - result.weight_bytes > 2.5 * WIDTH * WIDTH


def test_an_inner_body_that_changes_its_state_is_refused(tmp_path: Path) -> None:
    class Growing(Refiner):
        def refine(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            assert isinstance(state, Tensor)
            return torch.cat([state, state], dim=1)

    with pytest.raises(InputError, match=r"an inner loop changes its state 0 .*\(2, 7, 8\)"):
        loopedge.export(Growing().eval(), tmp_path / "model.onnx", inner="loop")


@pytest.mark.long
def test_an_inner_body_may_not_read_tensors_of_the_core(tmp_path: Path) -> None:
    class Closing(Refiner):
        def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            slow, fast = state

            def refine(inner: Tensors, _: Tensors, row: dict[str, Tensor]) -> Tensors:
                return torch.tanh(self.fast(inner)) + slow + row["step"]

            out = loopedge.inner_loop(refine, INNER, fast, (), {"step": row["steps"]})
            assert isinstance(out, Tensor)
            return self.slow(slow), out

    model = Closing().eval()
    loopedge.export(model, tmp_path / "out.onnx")
    with pytest.raises(InputError, match="neither a parameter nor a buffer"):
        loopedge.export(model, tmp_path / "loop.onnx", inner="loop")


def test_bad_counts_and_tables_are_refused() -> None:
    x = torch.zeros(1, WIDTH)
    body = lambda state, context, row: state  # noqa: E731
    with pytest.raises(InputError, match="0 times"):
        loopedge.inner_loop(body, 0, x)
    with pytest.raises(InputError, match=r"table a has shape \(2, 3\), axis 0 must be 4"):
        loopedge.inner_loop(body, 4, x, (), {"a": torch.zeros(2, 3)})
    assert np.array_equal(loopedge.inner_loop(body, 2, x), x)
