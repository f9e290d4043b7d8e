"""The cosine of a recurrent state to the float model's, by iteration, against a replay in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.quantizer.activations.smoothing import smoothable
from loopedge.quantizer.held_out.state_fidelity import StateFidelity, cosines_of_states
from loopedge.quantizer.noise import measure_noise
from loopedge.runtime.inputs import MASK
from tests.graph.chained_loops import chained
from tests.graph.test_passes import parse

Array = NDArray[Any]
LOOPS, D = 4, 6
RANDOM = np.random.default_rng(0)
WEIGHT = (RANDOM.normal(size=(D, D)) / 2).astype(np.float32)
WRONG = WEIGHT + (RANDOM.normal(size=(D, D)) / 9).astype(np.float32)
TYPED = f"float[batch, sequence, {D}]"
STATES = {
    1: ("final", "x", f"{TYPED} before", f"{TYPED} after"),
    2: ("final, other", "x, x", f"{TYPED} before, {TYPED} old", f"{TYPED} after, {TYPED} product"),
}


def looped(weight: Array, *, states: int = 1, mask: bool = False, choose: bool = False) -> ir.Model:
    """x <- x + tanh(x @ weight); a second state holds what the product gives."""
    finals, initials, before, after = STATES[states]
    inputs = [f"{TYPED} x", *([f"int64[batch, sequence] {MASK}"] if mask else [])]
    inputs += ["int64 n"] if choose else []
    count = "" if choose else f"int64 n = {{{LOOPS}}}, "
    shown = f"kept = Cast <to = 1> ({MASK}) axis = Constant <value_ints = [2]> () wide = Unsqueeze (kept, axis)"
    model = parse(
        f"""<ir_version: 9, opset_import: ["": 20]>
        g ({", ".join(inputs)}) => ({TYPED} y)
        <{count}bool go = {{1}}> {{
          {finals} = Loop (n, go, {initials}) <body = step
            (int64 i, bool c, {before}) => (bool d, {after}) {{
              d = Identity (c)
              product = MatMul (before, weight)
              added = Tanh (product)
              after = Add (before, added)
          }}>
          {f"{shown} y = Mul (final, wide)" if mask else "y = Identity (final)"}
        }}""",
        weight=weight,
    )
    loop = next(node for node in model.graph if node.op_type == "Loop")
    loop.name = "core"
    for node in loop.attributes["body"].as_graph():
        node.name = f"core/{node.op_type}"
        node.outputs[0].name = f"core/{node.outputs[0].name}"
    metadata = ArtifactMetadata(version="0", form="loop", loops=LOOPS, trained_loops=LOOPS)
    write_metadata(metadata, model.metadata_props)
    return model


def replayed(x: Array, weight: Array, loops: int = LOOPS) -> list[Array]:
    states = []
    for _ in range(loops):
        x = x + np.tanh(x @ weight)
        states.append(x)
    return states


def cosine(one: Array, other: Array) -> float:
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def measured(exact: ir.Model, given: ir.Model, folder: Path, *inputs: dict[str, Array]) -> Any:
    return measure_noise(exact, given, folder, inputs=inputs).states


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_of_two_batches_of_a_mask_the_mean_and_the_worst_sample(form: str, tmp_path: Path) -> None:
    mask = (np.arange(5) < np.array([[5], [2], [3]])).astype(np.int64)
    masks = [mask, mask[1:2]]
    inputs = [RANDOM.normal(size=(len(kept), 5, D)).astype(np.float32) for kept in masks]
    models = [looped(weight, mask=True) for weight in (WEIGHT, WRONG)]
    if form == "unrolled":
        models = [unroll(model) for model in models]
    batches: list[dict[str, Array]] = [
        {"x": x, MASK: kept} for x, kept in zip(inputs, masks, strict=True)
    ]
    (found,) = measured(models[0], models[1], tmp_path, *batches)
    expected = [
        [
            cosine(replayed(x, WEIGHT)[t][row, :length], replayed(x, WRONG)[t][row, :length])
            for x, kept in zip(inputs, masks, strict=True)
            for row, length in enumerate(kept.sum(axis=1))
        ]
        for t in range(LOOPS)
    ]
    assert (found.core, found.state) == ("core", "core/after")
    assert found.mean == pytest.approx([np.mean(row) for row in expected], abs=1e-6)
    assert found.worst == pytest.approx([min(row) for row in expected], abs=1e-6)
    assert (found.samples, found.undefined) == ([4] * LOOPS, [0] * LOOPS)
    assert max(found.worst) < 0.999  # the weight is wrong


def test_batches_of_different_loop_counts_count_in_the_iterations_that_they_run(
    tmp_path: Path,
) -> None:
    x = RANDOM.normal(size=(3, 2, D)).astype(np.float32)
    batches = [{"x": x[:size], "n": np.array(n)} for size, n in ((3, 1), (2, LOOPS))]
    (found,) = measured(looped(WEIGHT, choose=True), looped(WRONG, choose=True), tmp_path, *batches)
    assert found.samples == [5, 2, 2, 2]
    last = [cosine(a, b) for a, b in zip(replayed(x[:2], WEIGHT)[-1], replayed(x[:2], WRONG)[-1], strict=True)]  # fmt: skip
    assert found.worst[-1] == pytest.approx(min(last), abs=1e-6)


def test_every_state_counts_but_one_in_another_scale(tmp_path: Path) -> None:
    models, x = (looped(WEIGHT, states=2), looped(WRONG, states=2)), np.ones((2, 3, D), np.float32)
    found = measured(*models, tmp_path, {"x": x})
    assert [state.state for state in found] == ["core/after", "core/product"]
    noise = measure_noise(
        *models, tmp_path, inputs=[{"x": x}], rescaled={"core/product"}, random_rows=False
    )
    assert [state.state for state in noise.states] == ["core/after"]


def test_a_state_of_zeros_has_no_cosine_and_a_lost_one_has_zero(tmp_path: Path) -> None:
    x = np.zeros((2, 3, D), np.float32)
    x[1] = 1
    (found,) = measured(looped(WEIGHT), looped(WRONG), tmp_path, {"x": x})
    assert (found.samples, found.undefined) == ([1] * LOOPS, [1] * LOOPS)
    assert all(value is not None and value > 0 for value in found.worst)
    (found,) = measured(looped(WEIGHT), looped(WRONG), tmp_path, {"x": x[:1]})
    assert (found.mean, found.worst) == ([None] * LOOPS, [None] * LOOPS)
    lost = collected(x[1:], np.zeros_like(x[1:]))
    broken = collected(x[1:], np.full_like(x[1:], np.inf))
    assert lost.mean == broken.mean == [0.0]


def collected(exact: Array, given: Array, **feeds: Array) -> StateFidelity:
    cosines = cosines_of_states(Cores(looped(WEIGHT)), ())["core/after"]
    cosines.add({"x": exact, **feeds}, exact[None], given[None])
    assert cosines.found is not None
    return cosines.found


def test_huge_and_tiny_states_have_a_cosine() -> None:
    x = RANDOM.normal(size=(2, 3, D))
    x[0] *= 1e300
    x[1] *= 1e-300
    assert collected(x, 3e5 * x).mean == [1.0]
    assert collected(x, -x).worst == [-1.0]


def test_states_of_integers_are_left_out() -> None:
    cosines = cosines_of_states(Cores(looped(WEIGHT)), ())["core/after"]
    counts = np.ones((1, 2, 3), np.int64)
    cosines.add({"x": np.ones((2, 3, D))}, counts, counts)
    assert cosines.found is None


def test_samples_stand_on_the_axis_that_has_as_many_as_there_are(tmp_path: Path) -> None:
    """A state may be turned, (sequence, batch, features); an axis of fixed size is not that of samples."""
    cosines = cosines_of_states(Cores(looped(WEIGHT)), ())["core/after"]
    x = RANDOM.normal(size=(5, D, D))  # 6 samples, on the second axis; 6 features
    given = x + RANDOM.normal(size=x.shape)
    cosines.add({"x": np.ones((D, 5, D))}, x[None], given[None])
    assert cosines.found is not None
    each = [cosine(x[:, row], given[:, row]) for row in range(D)]
    assert cosines.found.worst == pytest.approx([min(each)])


def test_each_of_several_loops_has_its_own(tmp_path: Path) -> None:
    exact, given = (ir.from_proto(chained(own=True)) for _ in range(2))
    weight = given.graph.initializers["up1"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 0.5, name="up1")
    x = RANDOM.normal(size=(2, 3, 5)).astype(np.float32)
    first, second = measured(exact, given, tmp_path, {"inputs": x})
    assert (first.core, second.core) == ("core", "core2")
    assert (first.worst, len(second.worst)) == ([1.0] * 4, 3)  # the second alone is wrong
    assert max(second.worst) < 0.999


def test_a_stack_is_no_state() -> None:
    model = looped(WEIGHT)
    core = next(iter(Cores(model)))
    before = core.states
    loop = Cores(model).loops[0].loop
    loop.body.outputs.append(loop.body.node("core/MatMul").outputs[0])
    loop.widen(0)
    assert next(iter(Cores(model))).states == before == ["core/after"]


def test_a_value_projection_that_the_loop_carries_is_not_smoothed() -> None:
    """The next iteration would read it divided."""
    weights = {name: RANDOM.normal(size=(D, D)).astype(np.float32) for name in "qkvo"}
    text = f"""<ir_version: 10, opset_import: ["": 23]>
        g ({TYPED} x) => ({TYPED} y, {TYPED} z)
        <int64 n = {{3}}, bool go = {{1}}> {{
          y, z = Loop (n, go, x, x) <body = step (int64 i, bool c, {TYPED} before, {TYPED} old)
            => (bool d, {TYPED} after, {TYPED} NAME) {{
              d = Identity (c)
              query = MatMul (before, q)
              key = MatMul (before, k)
              value = MatMul (before, v)
              read = Attention <q_num_heads = 2, kv_num_heads = 2> (query, key, value)
              out = MatMul (read, o)
              more = Add (out, old)
              after = Add (before, more)
          }}>
        }}"""
    assert len(smoothable(parse(text.replace("NAME", "more"), **weights))) == 1
    assert smoothable(parse(text.replace("NAME", "value"), **weights)) == {}
