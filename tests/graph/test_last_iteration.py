"""The last iteration behind the Loop computes only what is read, and everything stays as it was."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import loopedge
from loopedge.artifact.artifact import Artifact, open_artifact, write_artifact
from loopedge.errors import InputError
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.untied import untie
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.passes.last_position import keep_last_position
from loopedge.graph.positions.coda import select_positions_first
from loopedge.graph.positions.last_iteration import narrow_last_iteration, restore_last_iteration

Array = np.ndarray[Any, Any]
FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, DYNAMIC = FIXTURES / "tiny.onnx", FIXTURES / "tiny_dynamic.onnx"
SIZES = [(1, 1), (3, 5), (2, 16)]
ROUNDING = 1e-5
"""Of the largest value: fewer rows are other kernels, see tests/parity/models.py."""


def ids(batch: int, sequence: int) -> Array:
    return np.random.default_rng(batch * sequence).integers(0, 48, (batch, sequence))


def reading(rows: int | Sequence[int] | slice, source: Path = TINY) -> ir.Model:
    """Let the model give the logits of some positions alone, as the coda of a module would."""
    model = open_artifact(source)
    (logits,) = model.graph.outputs
    logits.name = "coda/all"
    if isinstance(rows, slice):
        bounds = [
            add_initializer(model.graph, name, np.array([value], np.int64))
            for name, value in (("start", rows.start), ("end", rows.stop), ("axis", 1))
        ]
        reader = make_node("Slice", [logits, *bounds], "coda/reader")
    else:
        picked = add_initializer(model.graph, "picked", np.array(rows, np.int64))
        reader = make_node("Gather", [logits, picked], "coda/reader", {"axis": 1})
    output = reader.outputs[0]
    output.name, output.type = "logits", logits.type
    kept: list[int | None] = [] if isinstance(rows, int) else [None]
    output.shape = ir.Shape(["batch", *kept, 48])
    model.graph.append(reader)
    model.graph.outputs[0] = output
    return model


def run(model: ir.Model, path: Path, feeds: dict[str, Array], **options: Any) -> Array:
    write_artifact(model.clone(), path, force=True)
    return loopedge.Session(path, threads=1).run(feeds, **options)["logits"]


@pytest.mark.parametrize(
    ("rows", "positions", "take"),
    [
        (-1, "-1", lambda y: y[:, -1]),
        (0, "0", lambda y: y[:, 0]),
        ([-1], "-1", lambda y: y[:, [-1]]),
        ([0, -1], "0, -1", lambda y: y[:, [0, -1]]),
        (slice(-1, 2**31), "-1", lambda y: y[:, -1:]),
        (slice(-3, 2**31), "-3:", lambda y: y[:, -3:]),
        (slice(0, 2), "0:2", lambda y: y[:, :2]),
    ],
)
def test_the_rows_that_are_read_stay_the_same(
    rows: int | Sequence[int] | slice,
    positions: str,
    take: Callable[[Array], Array],
    tmp_path: Path,
) -> None:
    model = reading(rows)
    outcome = narrow_last_iteration(model)
    assert outcome.applied
    assert outcome.positions == positions
    assert (outcome.narrowed, outcome.products) == (5, 7)
    write_artifact(model, tmp_path / "last.onnx")
    onnx.checker.check_model(str(tmp_path / "last.onnx"), full_check=True)
    whole, last = (loopedge.Session(path, threads=1) for path in (TINY, tmp_path / "last.onnx"))
    for batch, sequence in SIZES:
        feeds = {"input_ids": ids(batch, sequence)}
        expected = take(whole.run(feeds)["logits"])
        given = last.run(feeds)["logits"]
        assert given.shape == expected.shape
        assert np.abs(given - expected).max() <= ROUNDING * np.abs(expected).max()


def test_a_position_past_the_sequence_fails_as_before(tmp_path: Path) -> None:
    plain, last = reading(4), reading(4)
    assert narrow_last_iteration(last).applied
    for name, model in (("plain", plain), ("last", last)):
        write_artifact(model, tmp_path / f"{name}.onnx")
        session = loopedge.Session(tmp_path / f"{name}.onnx")
        assert session.run({"input_ids": ids(1, 5)})["logits"].shape == (1, 48)
        with pytest.raises(InputError, match="failed to run"):
            session.run({"input_ids": ids(1, 3)})


@pytest.mark.parametrize("loops", [1, 2, 3, 50])
def test_the_loop_count_of_a_run_holds(loops: int, tmp_path: Path) -> None:
    model = reading([-1], DYNAMIC)
    assert narrow_last_iteration(model).applied
    feeds = {"input_ids": ids(2, 6)}
    expected = loopedge.Session(DYNAMIC).run(feeds, loops=loops)["logits"][:, [-1]]
    given = run(model, tmp_path / "last.onnx", feeds, loops=loops)
    assert np.abs(given - expected).max() <= ROUNDING * np.abs(expected).max()
    zero = run(model, tmp_path / "last.onnx", feeds | {"loops": np.array(0)})
    one = run(model, tmp_path / "last.onnx", feeds, loops=1)
    assert np.array_equal(zero, one)  # clamped to 1


def test_two_readers_share_one_iteration(tmp_path: Path) -> None:
    model = reading(0)
    source = next(node for node in model.graph if node.name == "coda/reader").inputs[0]
    last = add_initializer(model.graph, "last", np.array(-1, np.int64))
    other = make_node("Gather", [source, last], "coda/other", {"axis": 1})
    other.outputs[0].name, other.outputs[0].type = "other", model.graph.outputs[0].type
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])
    assert narrow_last_iteration(model).positions == "0, -1"
    write_artifact(model, tmp_path / "last.onnx")
    feeds = {"input_ids": ids(2, 7)}
    given = loopedge.Session(tmp_path / "last.onnx").run(feeds)
    expected = loopedge.Session(TINY).run(feeds)["logits"]
    for name, row in (("logits", 0), ("other", -1)):
        assert np.allclose(given[name], expected[:, row], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("source", [TINY, DYNAMIC])
def test_the_way_back_gives_the_loop_again(source: Path, tmp_path: Path) -> None:
    model = reading([-1], source)
    feeds = {"input_ids": ids(3, 9)}
    expected = run(model, tmp_path / "plain.onnx", feeds)
    weights = weight_names(model)
    assert narrow_last_iteration(model).applied
    assert weight_names(model) == weights  # none is stored twice
    first = sorted((node.name, node.op_type) for node in model.graph.all_nodes())
    assert restore_last_iteration(model)
    assert not restore_last_iteration(model)
    metadata = read_metadata(model.metadata_props)
    assert not metadata.foreign
    assert metadata.last_rows is None
    assert not any("core.last" in (node.name or "") for node in model.graph)
    assert np.array_equal(run(model, tmp_path / "back.onnx", feeds), expected)
    assert narrow_last_iteration(model).applied
    assert sorted((node.name, node.op_type) for node in model.graph.all_nodes()) == first


def weight_names(model: ir.Model) -> set[str]:
    return {
        name
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT
    }


def test_what_works_on_weights_sees_all_iterations(tmp_path: Path) -> None:
    model = reading([-1])
    narrow_last_iteration(model)
    write_artifact(model, tmp_path / "last.onnx")
    opened = Artifact.open(tmp_path / "last.onnx").float32_graph()
    core = view_core(opened)
    assert isinstance(core, LoopCore)
    assert core.loop.trip_count == loopedge.inspect(TINY).loops


def test_the_twins_compute_the_same_rows(tmp_path: Path) -> None:
    model = reading([-1])
    narrow_last_iteration(model)
    feeds = {"input_ids": ids(2, 6)}
    expected = run(model, tmp_path / "last.onnx", feeds)
    loops = loopedge.inspect(TINY).loops or 0
    for twin, tolerance in ((unroll(model), ROUNDING), (untie(model), 1e-4)):
        given = run(twin, tmp_path / "twin.onnx", feeds)
        assert np.abs(given - expected).max() <= tolerance * np.abs(expected).max()
        names = [node.name or "" for node in twin.graph]
        assert not any(name.startswith("core.last/") for name in names)
        assert any(name.startswith(f"core.{loops - 1}/") for name in names)
    untied = {name for name in untie(model).graph.initializers if name.endswith("q.weight.0")}
    assert untied == {"core_layers.0.attention.q.weight.0"}


def test_inspect_counts_each_weight_as_often_as_it_is_read(tmp_path: Path) -> None:
    model = reading([-1])
    narrow_last_iteration(model)
    write_artifact(model, tmp_path / "last.onnx")
    before, after = loopedge.inspect(TINY), loopedge.inspect(tmp_path / "last.onnx")
    assert after.last_rows == "-1"
    assert before.last_rows is None
    assert after.tied_weights == before.tied_weights
    assert (after.weight_bytes, after.untied_bytes) == (before.weight_bytes, before.untied_bytes)
    assert after.int8 == before.int8
    assert after.loops == before.loops


def exiting() -> ir.Model:
    model = reading(-1)
    metadata = read_metadata(model.metadata_props)
    assert not metadata.foreign
    write_metadata(metadata.model_copy(update={"exit": "halt"}), model.metadata_props)
    return model


def foreign() -> ir.Model:
    model = reading(-1)
    model.metadata_props.clear()
    return model


def already() -> ir.Model:
    model = reading(-1)
    narrow_last_iteration(model)
    return model


def in_two_ways() -> ir.Model:
    model = reading(slice(-2, 2**31))
    source = next(node for node in model.graph if node.name == "coda/reader").inputs[0]
    first = add_initializer(model.graph, "first", np.array(0, np.int64))
    other = make_node("Gather", [source, first], "coda/other", {"axis": 1})
    other.outputs[0].name, other.outputs[0].type = "other", model.graph.outputs[0].type
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])
    return model


def ranged() -> ir.Model:
    """Let the down projection take its range over all positions, as dynamic int8 does."""
    model = reading(-1)
    for node in view_core(model).nodes:
        if node.name == "core/linear_5":
            node.op_type, node.domain = "DynamicQuantizeMatMul", "com.microsoft"
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: open_artifact(TINY), "the coda reads all positions"),
        (lambda: unroll(open_artifact(TINY)), "not in the loop form"),
        (foreign, "not in the loop form"),
        (exiting, "early exit"),
        (already, "stands behind the Loop already"),
        (in_two_ways, "in several ways: -2:; 0"),
        (lambda: reading(slice(1, 2**31)), "positions 1:, which grow with the sequence"),
        (lambda: reading(list(range(12))), "12 positions of the 16"),
        (ranged, r"core/linear_5 \(DynamicQuantizeMatMul\) takes its range over all positions"),
    ],
)
def test_where_nothing_is_gained_the_graph_stays(make: Callable[[], ir.Model], reason: str) -> None:
    model = make()
    before = [(node.name, node.op_type) for node in model.graph.all_nodes()]
    outcome = narrow_last_iteration(model)
    assert not outcome.applied
    assert outcome.reason is not None
    assert re.search(reason, outcome.reason)
    assert [(node.name, node.op_type) for node in model.graph.all_nodes()] == before


def test_the_head_computes_the_last_position_alone(tmp_path: Path) -> None:
    model = open_artifact(TINY)
    assert keep_last_position(model) == ["logits"]
    assert select_positions_first(model)
    names = [node.name or "" for node in model.graph]
    assert names.index("coda/rows.core/state.0") < names.index("coda/rms_norm")
    assert "coda/last.0" not in names
    feeds = {"input_ids": ids(2, 6)}
    given = run(model, tmp_path / "last.onnx", feeds)
    assert given.shape == (2, 1, 48)
    expected = loopedge.Session(TINY).run(feeds)["logits"][:, -1:]
    assert np.abs(given - expected).max() <= ROUNDING * np.abs(expected).max()


def test_an_output_without_positions_has_no_last_one() -> None:
    model = reading(-1)
    with pytest.raises(InputError, match=r"none to keep the last of: logits \(batch, 48\)"):
        keep_last_position(model)
