"""``--ops qdq``: each linear between pairs of its own, each weight once, what each target asks, by hand and in onnx.reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import open_artifact
from loopedge.artifact.inspection import inspect
from loopedge.errors import InputError
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.inputs import generate_inputs
from loopedge.quantizer.activations.ranges import RangeTable, TensorRange
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.schemes.targets import COMMON, TARGETS, target_of
from tests.graph.test_places import Drawing

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
LOOPS, LINEARS = 3, 6
"""Of the fixture: its iterations, and the linears of one; its head is the seventh, and shares a table."""


def table_of(path: Path, **options: Any) -> RangeTable:
    artifact = open_artifact(path)
    samples = [generate_inputs(artifact, batch=4, sequence=9, seed=seed) for seed in range(1, 5)]
    return loopedge_calibration.collect(path, samples, threads=1, **options)


def hand_made_table(ranges: dict[str, list[tuple[float, float]]], loops: int) -> RangeTable:
    tensors = {
        name: TensorRange(low=[low for low, _ in rows], high=[high for _, high in rows])
        for name, rows in ranges.items()
    }
    return RangeTable(
        weights_sha256="0" * 64,
        loops=loops,
        granularity="per-iteration",
        method="minmax",
        samples=1,
        data_sha256="0" * 64,
        lengths=[1],
        tensors=tensors,
    )


def quantized(path: Path, target: str | None = None, **options: Any) -> onnx.ModelProto:
    model = unroll(open_artifact(path))
    recipe = Recipe(
        scheme="static", ops="qdq", target=target, table=table_of(path, **options), keep=()
    )
    recipe.check_options()
    recipe.apply(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}


def products(proto: onnx.ModelProto) -> list[tuple[onnx.NodeProto, ...]]:
    """Return every MatMul with its weight's DequantizeLinear, and the pair of what it reads."""
    made = {name: node for node in proto.graph.node for name in node.output}
    found = []
    for node in proto.graph.node:
        if node.op_type == "MatMul":
            values, weight = (made[name] for name in node.input)
            found.append((node, weight, values, made[values.input[0]]))
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_every_linear_has_pairs_of_its_own_and_every_weight_is_stored_once(target: str) -> None:
    proto = quantized(TINY, target)
    stored, found = arrays(proto), products(proto)
    assert len(found) == LOOPS * LINEARS + 1
    kinds = [tuple(node.op_type for node in each) for each in found]
    assert set(kinds) == {("MatMul", "DequantizeLinear", "DequantizeLinear", "QuantizeLinear")}
    for place in (1, 2, 3):
        assert len({each[place].name for each in found}) == len(found)
    reads = Counter(weight.input[0] for _, weight, _, _ in found)
    assert sorted(reads.values()) == [1] + [LOOPS] * LINEARS
    assert all(stored[name].dtype.itemsize == 1 for name in reads)
    floats = sum(a.size for n, a in stored.items() if n in reads and a.dtype == np.float32)
    assert floats == 0
    asked = target_of(target)
    for _, weight, values, rounded in found:
        assert values.input[1:] == rounded.input[1:]
        zero = stored[rounded.input[2]]
        assert zero.dtype == asked.activations.dtype
        assert zero == 0 or not asked.activations.symmetric
        assert stored[rounded.input[1]].shape == ()
        one_scale = not asked.per_channel and weight.input[0] != "embedding.weight"
        assert (stored[weight.input[1]].shape == ()) == one_scale


def test_no_scale_is_computed_and_no_loop_is_left() -> None:
    proto = quantized(TINY)
    stored = arrays(proto)
    for node in proto.graph.node:
        assert node.op_type != "Loop"
        assert node.domain == ""
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert all(name in stored for name in node.input[1:])


def looped(weight: np.ndarray, loops: int) -> ir.Model:
    """Return x @ W @ W ... with one weight, called as the iterations of a core are."""
    drawn = Drawing(len(weight))
    value = drawn.weight("step", *weight.shape)
    value.const_value = ir.tensor(weight, name=value.name)
    state = drawn.x
    for t in range(loops):
        state = drawn.mul(f"core.{t}/step", state, value)
    return drawn.model(drawn.op("Neg", "negated", state))


def by_hand(
    x: np.ndarray, weight: np.ndarray, rows: list[tuple[float, float]], target: str
) -> np.ndarray:
    """Compute the same with the scales that a target asks for, written out again."""
    scales = np.abs(weight).max(axis=0) / 127
    if target == "qnn":
        scales = np.full_like(scales, np.abs(weight).max() / 127)
    rounded = np.rint(weight / scales) * scales
    for low, high in rows:
        if target == "qnn":
            step = (high - low) / 65535
            zero = np.rint(-low / step)
            x = (np.clip(np.rint(x / step) + zero, 0, 65535) - zero) * step
        else:
            step = max(-low, high) / 127
            x = np.clip(np.rint(x / step), -128, 127) * step
        x = x @ rounded
    return -x


@pytest.mark.parametrize("target", [COMMON, "qnn"])
def test_the_scale_of_each_iteration_is_that_of_its_range(target: str) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(8, 8)).astype(np.float32)
    x = generator.normal(size=(5, 8)).astype(np.float32)
    rows = [(-2.0, 1.5), (-4.0, 7.0), (-0.5, 20.0)]
    model = looped(weight, len(rows))
    table = hand_made_table({"core/step": rows}, len(rows))
    Recipe(scheme="static", ops="qdq", target=target, table=table).apply(model)
    (given,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    expected = by_hand(x.astype(np.float64), weight.astype(np.float64), rows, target)
    assert np.abs(given - expected).max() < 1e-3 * np.abs(expected).max()
    other = by_hand(x.astype(np.float64), weight.astype(np.float64), rows[:1] * 3, target)
    assert np.abs(given - other).max() > 1e-2 * np.abs(expected).max()


def test_a_table_of_fewer_iterations_is_refused() -> None:
    model = looped(np.ones((4, 4), np.float32), 3)
    table = hand_made_table({"core/step": [(-1.0, 1.0)] * 2}, 2)
    with pytest.raises(InputError, match=r"for 2 iterations, core\.2/step is one more"):
        Recipe(scheme="static", ops="qdq", table=table).apply(model)


def test_one_shared_range_gives_every_iteration_the_same_scale() -> None:
    proto = quantized(TINY, granularity="shared")
    stored = arrays(proto)
    scales: dict[str, set[float]] = {}
    for node, _, _, rounded in products(proto):
        place, _, rest = node.name.partition("/")
        scales.setdefault(f"{place.partition('.')[0]}/{rest}", set()).add(
            float(stored[rounded.input[1]])
        )
    assert {len(found) for found in scales.values()} == {1}


def test_onnx_reference_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    loopedge.quantize(TINY, path, ops="qdq", ranges=table_of(TINY), reduce_range=True, threads=1)
    feeds = generate_inputs(open_artifact(path), batch=2, sequence=9)
    given = loopedge.Session(path, threads=1).run(feeds)["logits"]
    (expected,) = ReferenceEvaluator(onnx.load(path)).run(["logits"], dict(feeds))
    noise = np.square(given - expected).sum() / np.square(expected).sum()
    assert noise < 1e-4  # a step of 256 here and there; a wrong scale is past 1e-2


def test_inspect_counts_the_products_and_what_tying_saves(tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    loopedge.quantize(TINY, path, ops="qdq", ranges=table_of(TINY), threads=1)
    found = inspect(path)
    assert (found.form, found.loops) == ("unrolled", LOOPS)
    assert found.int8.quantized == found.int8.total == LOOPS * LINEARS + 1
    uses = {weight.name: weight.uses for weight in found.tied_weights}
    assert uses["core_layers.0.mlp.up.weight"] == LOOPS
    assert found.untied_bytes > 2 * found.weight_bytes


def test_a_kept_linear_stays_float_in_every_iteration() -> None:
    model = unroll(open_artifact(TINY))
    table = table_of(TINY)
    made = Recipe(scheme="static", ops="qdq", table=table, keep=("core/linear_5",)).apply(model)
    assert [item.name for item in made.coverage.skipped] == [
        f"core.{t}/linear_5" for t in range(LOOPS)
    ]
    assert len(made.coverage.quantized) == LOOPS * (LINEARS - 1) + 1


def test_a_weight_only_linear_reads_what_it_read_in_float() -> None:
    model = unroll(open_artifact(TINY))
    recipe = Recipe(scheme="static", ops="qdq", table=table_of(TINY), weight_only=("core/linear",))
    recipe.check_options()
    made = recipe.apply(model)
    assert made.weight_only == [f"core.{t}/linear" for t in range(LOOPS)]
    for node in model.graph:
        if node.op_type == "MatMul" and node.name in made.weight_only:
            kinds = [value.producer() for value in node.inputs if value is not None]
            assert [None if kind is None else kind.op_type for kind in kinds] == [
                "RMSNormalization",
                "DequantizeLinear",
            ]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_names_where_its_rules_are_written(name: str) -> None:
    sources = TARGETS[name].sources
    assert sources
    assert name == COMMON or all(source.startswith("https://") for source in sources)


def test_wide_activations_need_an_opset_that_has_them() -> None:
    with pytest.raises(InputError, match=r"uint16, which needs opset 21; old\.onnx has opset 20"):
        target_of("qnn").check_opset(20, "old.onnx")
    target_of("qnn").check_opset(21, "new.onnx")
    target_of("openvino").check_opset(18, "old.onnx")
