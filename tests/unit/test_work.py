"""Operations and bytes of an inference, from the shapes in a trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from loopedge.artifact.artifact import open_artifact
from loopedge.graph.editing import initializer
from loopedge.profiler.dissection.roofline import compare_with_limits
from loopedge.profiler.dissection.work import Work, count_work
from loopedge.profiler.result import MachineLimits
from loopedge.runtime.session_options import session_options

FIXTURES = Path(__file__).parents[1] / "fixtures"
EMPTY = ir.from_onnx_text(
    '<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y) { y = Identity (x) }'
)


def event(
    op: str,
    inputs: list[dict[str, list[int]]],
    outputs: list[dict[str, list[int]]],
    name: str = "n",
) -> dict[str, Any]:
    shapes = {"input_type_shape": inputs, "output_type_shape": outputs}
    return {
        "name": f"{name}_kernel_time",
        "ts": 1,
        "dur": 5,
        "tid": 1,
        "args": {"op_name": op, **shapes},
    }


def floats(*shape: int) -> dict[str, list[int]]:
    return {"float": list(shape)}


def work(*events: dict[str, Any], graph: ir.Model = EMPTY) -> Work:
    return count_work([*events, {"name": "model_run", "ts": 0, "dur": 10}], graph)


def traced(graph: ir.Model, feeds: dict[str, Any], folder: Path, memory: str = "balanced") -> Work:
    """Count the work of a graph that ONNX Runtime really runs."""
    path = folder / "model.onnx"
    ir.save(graph, path)
    options = session_options(1, memory)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(4):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return count_work(events, graph)


def with_weight(text: str, weight: np.ndarray[Any, Any]) -> ir.Model:
    """Make the last input of a graph a stored weight."""
    model = ir.from_onnx_text(text)
    stored = initializer("w", weight)
    ir.convenience.replace_all_uses_with(model.graph.inputs.pop(), stored)
    model.graph.register_initializer(stored)
    return model


HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>'
FLOAT = HEAD + "g (float[B, S, 8] x, float[8, 6] w) => (float[B, S, 6] y) { y = MatMul (x, w) }"
INT8 = HEAD + (
    "g (uint8[B, S, 8] x, int8[8, 6] w) => (int32[B, S, 6] y) <uint8 z = {128}>"
    " { y = MatMulInteger (x, w, z) }"
)


@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_a_packed_weight_counts_though_the_trace_leaves_it_out(memory: str, tmp_path: Path) -> None:
    model = with_weight(FLOAT, np.ones((8, 6), np.float32))
    found = traced(model, {"x": np.ones((2, 5, 8), np.float32)}, tmp_path, memory)
    assert found.float_operations == 2 * 2 * 5 * 8 * 6
    assert found.int8_operations == 0
    assert found.moved_bytes == 4 * (2 * 5 * 8 + 8 * 6 + 2 * 5 * 6)
    assert found.uncounted == []


@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_integer_products_are_counted_apart(memory: str, tmp_path: Path) -> None:
    model = with_weight(INT8, np.ones((8, 6), np.int8))
    found = traced(model, {"x": np.ones((2, 5, 8), np.uint8)}, tmp_path, memory)
    assert (found.float_operations, found.int8_operations) == (0, 2 * 2 * 5 * 8 * 6)
    assert found.moved_bytes == 2 * 5 * 8 + 8 * 6 + 4 * 2 * 5 * 6


def test_the_stored_table_of_a_head_may_be_on_the_left() -> None:
    found = work(event("MatMul", [floats(100, 8), floats(1, 8, 5)], [floats(1, 100, 5)]))
    assert found.float_operations == 2 * 100 * 8 * 5
    turned = work(event("FusedMatMul", [floats(3, 8, 5), floats(3, 8, 7)], [floats(3, 5, 7)]))
    assert turned.float_operations == 2 * 3 * 5 * 8 * 7


@pytest.mark.parametrize(
    ("inputs", "outputs", "operations"),
    [
        ([floats(2, 5, 12)] * 3, [floats(2, 5, 12)], 4 * 2 * 5 * 5 * 12),
        ([floats(2, 3, 5, 4)] * 3, [floats(2, 3, 5, 4)], 4 * 2 * 5 * 5 * 12),
        # One query; past and new keys stand in the outputs, of two key heads for three queries'.
        (
            [floats(1, 1, 12), floats(1, 1, 8), floats(1, 1, 8)],
            [floats(1, 1, 12), floats(1, 2, 9, 4), floats(1, 2, 9, 4)],
            4 * 9 * 12,
        ),
        # com.microsoft.Attention: one weight makes queries, keys and values.
        (
            [floats(2, 5, 12), floats(12, 36), floats(36)],
            [floats(2, 5, 12)],
            2 * 2 * 5 * 12 * 36 + 4 * 2 * 5 * 5 * 12,
        ),
    ],
)
def test_attention_counts_both_products(
    inputs: list[Any], outputs: list[Any], operations: int
) -> None:
    assert work(event("Attention", inputs, outputs)).float_operations == operations


def test_convolutions_and_sums_of_einstein_are_read_from_the_graph(tmp_path: Path) -> None:
    convolution = with_weight(
        HEAD + "g (float[1, 4, L] x, float[6, 2, 3] w) => (float[1, 6, M] y)"
        " { y = Conv <group = 2> (x, w) }",
        np.ones((6, 2, 3), np.float32),
    )
    convolution.graph[0].name = "conv"
    found = traced(convolution, {"x": np.ones((1, 4, 10), np.float32)}, tmp_path)
    assert found.float_operations == 2 * 6 * 8 * 2 * 3
    einsum = with_weight(
        HEAD
        + 'g (float[B, 5] x, float[5, 7] w) => (float[7, B] y) { y = Einsum <equation = "bi, io -> ob"> (x, w) }',
        np.ones((5, 7), np.float32),
    )
    einsum.graph[0].name = "sum"
    found = traced(einsum, {"x": np.ones((3, 5), np.float32)}, tmp_path)
    assert found.float_operations == 2 * 3 * 5 * 7


def test_what_cannot_be_counted_is_named_and_views_move_nothing() -> None:
    found = work(
        event("GRU", [floats(5, 1, 8)], [floats(5, 1, 1, 8)]),
        event("Reshape", [floats(5, 8)], [floats(40)], "m"),
        event("Gather", [floats(1000, 8), {"int64": [5]}], [floats(5, 8)], "o"),
    )
    assert found.uncounted == ["GRU"]
    assert found.float_operations == 0
    assert found.moved_bytes == 4 * (5 * 8 + 5 * 8) + 2 * 4 * 5 * 8


def test_every_iteration_of_a_loop_counts() -> None:
    """Two iterations of one product inside a Loop, whose own event holds shapes too."""
    product = event("MatMul", [floats(1, 5, 8)], [floats(1, 5, 6)])
    loop = event("Loop", [floats(1, 5, 8)], [floats(1, 5, 8)]) | {"ts": 0, "dur": 10}
    found = work(loop, product, {**product, "ts": 6, "dur": 3})
    assert found.float_operations == 2 * (2 * 5 * 8 * 6)
    assert found.moved_bytes == 2 * 4 * (5 * 8 + 8 * 6 + 5 * 6)


LIMITS = MachineLimits(threads=1, gflops_per_second=100, int8_gops_per_second=400, gb_per_second=10)


def counted(float_operations: float, int8_operations: float, moved_bytes: float) -> Work:
    return Work(
        float_operations=float_operations,
        int8_operations=int8_operations,
        moved_bytes=moved_bytes,
        uncounted=[],
    )


def test_each_kind_of_product_is_held_against_its_own_limit() -> None:
    # 1e9 / 100e9 + 8e9 / 400e9 = 30 ms of 60 ms; 0.15 GB take 15 ms
    found = compare_with_limits(counted(1e9, 8e9, 0.15e9), LIMITS, 60.0)
    assert found is not None
    assert found.compute_share == pytest.approx(0.5)
    assert found.copy_share == pytest.approx(0.25)
    assert found.gflop == pytest.approx(9)
    assert found.gb == pytest.approx(0.15)
    assert found.gflops_per_second == pytest.approx(150)
    assert found.gb_per_second == pytest.approx(2.5)
    assert found.bound == "compute"
    other = compare_with_limits(counted(1e9, 0, 0.5e9), LIMITS, 60.0)
    assert other is not None
    assert other.bound == "memory"
    slow = compare_with_limits(counted(1e9, 0, 0.2e9), LIMITS, 60.0)  # a sixth, and a third
    assert slow is not None
    assert slow.bound == "neither"


def test_without_products_there_is_no_roofline() -> None:
    assert compare_with_limits(counted(0, 0, 1e6), LIMITS, 1.0) is None


def test_the_tiny_model_is_what_its_sizes_say(tmp_path: Path) -> None:
    """Three loops of 12 d^2 weights and attention, and the head: d=32, vocabulary 48."""
    d, loops, vocabulary, positions = 32, 3, 48, 7
    ids = np.zeros((1, positions), np.int64)
    found = traced(open_artifact(FIXTURES / "tiny.onnx"), {"input_ids": ids}, tmp_path)
    core = 2 * positions * 12 * d * d + 4 * positions * positions * d
    assert found.float_operations == loops * core + 2 * positions * d * vocabulary
    assert found.uncounted == []
