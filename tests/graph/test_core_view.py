"""What a graph says of its core: the same in each form, and what was built is found again."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from loopedge.artifact.artifact import open_artifact
from loopedge.graph.core.loop_node import EarlyExit, loop_node
from loopedge.graph.core.names import loop_name
from loopedge.graph.core.pieces import Piece
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.core.view import LoopCore, NoCore, UnrolledCore, view_core
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.metadata import ArtifactMetadata, write_metadata
from loopedge.graph.positions.last_iteration import narrow_last_iteration, restore_last_iteration

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
LOOPS, WIDTH = 3, 4
GENERATOR = np.random.default_rng(5)
WEIGHT = GENERATOR.normal(size=(WIDTH, WIDTH)).astype(np.float32)
ROWS = GENERATOR.normal(size=(LOOPS, WIDTH)).astype(np.float32)
X = GENERATOR.normal(size=(2, WIDTH)).astype(np.float32)


def floats(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def built(limit: float | None = None) -> ir.Model:
    """Build state <- state @ weight * row[t] + shift out of nodes, shift = exp(x).

    A batch row is done once its first value is past ``limit``.
    """
    x, state, shift, row = (
        floats("x", "batch", WIDTH),
        floats("state", "batch", WIDTH),
        floats("shift", "batch", WIDTH),
        floats("row", WIDTH),
    )
    before = make_node("Exp", [x], "prelude/shift")
    before.outputs[0].type, before.outputs[0].shape = x.type, ir.Shape(["batch", WIDTH])
    graph = ir.Graph([x], [], nodes=[before], opset_imports={"": 20}, name="built")
    weight = add_initializer(graph, "weight", WEIGHT)
    table = add_initializer(graph, "timestep.gate", ROWS)
    product = make_node("MatMul", [state, weight], "core/product")
    gated = make_node("Mul", [product.outputs[0], row], "core/gated")
    moved = make_node("Add", [gated.outputs[0], shift], "core/moved")
    for node in (product, gated, moved):
        node.outputs[0].type, node.outputs[0].shape = state.type, ir.Shape(["batch", WIDTH])
    nodes = loop_node(
        "core",
        Piece([state, shift, row], [moved.outputs[0]], [product, gated, moved]),
        state=[x],
        context=[before.outputs[0]],
        tables={"gate": table},
        trip_count=add_initializer(graph, "loopedge.loops", np.array(LOOPS, np.int64)),
        constant=lambda name, array: add_initializer(graph, name, array),
        early=None if limit is None else stops_past(limit, graph),
    )
    graph.extend(nodes)
    graph.outputs.append(nodes[-1].outputs[0])
    if limit is not None:
        graph.outputs.append(nodes[-1].outputs[-1])
    model = ir.Model(graph, ir_version=9)
    metadata = ArtifactMetadata(
        version="0",
        form="loop",
        loops=LOOPS,
        trained_loops=LOOPS,
        exit=None if limit is None else "halt",
    )
    write_metadata(metadata, model.metadata_props)
    return model


def stops_past(limit: float, graph: ir.Graph) -> EarlyExit:
    new, old = floats("new", "batch", WIDTH), floats("old", "batch", WIDTH)
    first = make_node(
        "Gather", [new, add_initializer(graph, "zero", np.array(0))], "h", {"axis": 1}
    )
    bound = add_initializer(graph, "limit", np.array(limit, np.float32))
    past = make_node("Greater", [first.outputs[0], bound], "core/halt/past")
    return EarlyExit(
        piece=Piece([new, old], [past.outputs[0]], [first, past]), others=(), batched=(True,)
    )


def run(model: ir.Model) -> list[NDArray[Any]]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return [np.asarray(array) for array in ReferenceEvaluator(proto).run(None, {"x": X})]


def iterate(count: int, state: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    for t in range(count):
        state = state @ WEIGHT * ROWS[t] + np.exp(x)
    return state


def test_a_loop_built_of_nodes_computes_their_iterations() -> None:
    (given,) = run(built())
    assert np.allclose(given, iterate(LOOPS, X, X), rtol=1e-5)


def test_a_batch_row_that_is_done_keeps_its_state() -> None:
    after_one = iterate(1, X, X)
    limit = float(np.sort(after_one[:, 0]).mean())  # one batch row is past it, the other is not
    given, ran = run(built(limit))
    for row in range(len(X)):
        x = X[row : row + 1]
        counts = [n for n in range(1, LOOPS + 1) if iterate(n, x, x)[0, 0] > limit]
        assert ran[row] == min([*counts, LOOPS])
        assert np.allclose(given[row], iterate(int(ran[row]), x, x)[0], rtol=1e-5)
    assert ran.min() == 1 < ran.max()


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_what_was_built_is_found_again(form: str) -> None:
    model = built() if form == "loop" else unroll(built())
    core = view_core(model)
    assert core.form == form
    assert core.iterations == LOOPS
    assert core.states == ["core/moved.output"]
    assert [loop_name(item.node) for item in core.linears] == ["core/product"]
    assert core.weights == {"weight": LOOPS}
    assert list(core.tables) == ["timestep.gate"]
    assert [value.name for value in core.context] == ["prelude/shift.output"]
    assert core.outputs == list(model.graph.outputs)
    assert core.inner_loops == []
    assert not core.contains(next(iter(model.graph)))
    assert all(core.contains(node) for node in core.nodes)


def test_the_parts_of_a_loop_have_their_names() -> None:
    core = view_core(built(0.0))
    assert isinstance(core, LoopCore)
    loop = core.loop
    assert (loop.iteration.name, loop.condition.name) == ("iteration", "condition")
    assert [value.name for value in loop.before] == ["state.0", "done", "iterations_so_far"]
    assert len(loop.after) == len(loop.final) == len(loop.initial) == 3
    assert loop.stacked == []
    assert loop.trip_count == LOOPS
    assert not loop.runs_on
    assert core.exit is not None
    assert (core.exit.done.name, core.exit.ran.name) == ("done", "iterations_so_far")
    assert core.states == ["core/state.0.kept"]
    assert core.number_at(core.nodes[0]) is loop.iteration


def test_both_forms_of_an_artifact_give_the_same_answers() -> None:
    model = open_artifact(TINY)
    loop, unrolled = view_core(model), view_core(unroll(model))
    assert isinstance(loop, LoopCore)
    assert isinstance(unrolled, UnrolledCore)
    assert loop.trips == loop.iterations == unrolled.iterations == 3
    assert loop.states == unrolled.states
    assert loop.weights == unrolled.weights
    assert list(loop.tables) == list(unrolled.tables)
    names = [[loop_name(item.node) for item in core.linears] for core in (loop, unrolled)]
    assert names[0] == names[1]
    assert len(names[0]) == 6
    assert [value.name for value in loop.context] == [value.name for value in unrolled.context]


def test_the_iteration_of_a_node_is_a_value_in_each_form() -> None:
    unrolled = unroll(built())
    core = view_core(unrolled)
    for node in unrolled.graph:
        t = 0 if (node.name or "").startswith("prelude/") else int((node.name or "")[5])
        number = core.number_at(node).const_value
        assert number is not None
        assert number.numpy().item() == t


def test_a_last_iteration_behind_the_loop_belongs_to_the_core() -> None:
    model = open_artifact(TINY)
    rows = add_initializer(model.graph, "rows", np.array([-1]))
    (output,) = model.graph.outputs
    taken = make_node("Gather", [output, rows], "coda/taken", {"axis": 1})
    taken.outputs[0].type = output.type
    model.graph.append(taken)
    model.graph.outputs[0] = taken.outputs[0]
    assert narrow_last_iteration(model).applied
    core = view_core(model)
    assert isinstance(core, LoopCore)
    assert (core.iterations, core.trips, core.loop.trip_count) == (3, 2, 2)
    assert core.last_state(0) in core.outputs
    assert not any(core.contains(node) for node in core.last_nodes)
    assert core.number_at(core.last_nodes[0]) is core.loop.count
    assert restore_last_iteration(model)
    again = view_core(model)
    assert isinstance(again, LoopCore)
    assert (again.trips, again.last_nodes) == (3, [])


LOOP = """{name} = Loop <body = g{name} (int64 t{name}, bool c{name}, float[4] s{name})
    => (bool k{name}, float[4] n{name}) {{ k{name} = Identity (c{name}) n{name} = Exp (s{name}) }}>
    ({count}, always, {start})"""


def foreign(*loops: str, count: int = 5) -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["": 20]>
        agraph (float[4] x) => (float[4] y)
        <int64 count = {{{count}}}, bool always = {{1}}> {{ {" ".join(loops)} y = Neg (last) }}"""
    )


@pytest.mark.parametrize(("count", "iterations"), [(5, 5), (2**62, None)])
def test_the_only_loop_of_another_tool_is_its_core(count: int, iterations: int | None) -> None:
    core = view_core(foreign(LOOP.format(name="last", count="count", start="x"), count=count))
    assert isinstance(core, LoopCore)
    assert core.iterations == iterations
    assert core.loop.runs_on
    assert core.exit is None


def test_of_several_loops_none_is_the_only_core() -> None:
    first = LOOP.format(name="first", count="count", start="x")
    core = view_core(foreign(first, LOOP.format(name="last", count="count", start="first")))
    assert isinstance(core, NoCore)
    assert (core.form, core.iterations, core.states, core.weights) == (None, None, [], {})
    assert not any(core.contains(node) for node in core.model.graph.all_nodes())


def test_the_only_loop_of_another_tool_is_its_core_whatever_other_nodes_are_called() -> None:
    model = built()
    model.metadata_props.clear()
    graph = model.graph
    next(node for node in graph if node.op_type == "Loop").name = "repeat"
    beside = make_node("Exp", [graph.inputs[0]], "core.0/beside")
    graph.append(beside)
    graph.outputs.append(beside.outputs[0])
    core = view_core(model)
    assert isinstance(core, LoopCore)
    assert core.loop.node.name == "repeat"
    assert core.iterations == LOOPS
