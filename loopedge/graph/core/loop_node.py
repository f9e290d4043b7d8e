"""Build a Loop node out of nodes: the one that repeats the core, or an inner loop inside its body.

`loopedge.graph.core.unrolling` goes the other way; `loopedge.graph.core.view` reads what is built here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.core.pieces import Piece, connect, copy_shape
from loopedge.graph.editing import make_node

__all__ = ["AddConstant", "EarlyExit", "loop_node"]

KEEP_PREFIX = f"{CORE_NAME}/keep."
"""Nodes that keep the state of batch rows that are done."""

AddConstant = Callable[[str, npt.NDArray[np.generic]], ir.Value]
"""Returns an initializer of the main graph that holds an array, under a name."""

BOOL, INT64 = ir.DataType.BOOL, ir.DataType.INT64


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """What ends a Loop early.

    ``piece`` is the halt, (states, states before, others) -> bool (batch,): which batch rows are done;
    ``others`` are what it reads besides the states; ``batched`` says of each state whether its first axis
    is the batch, so that the state of a batch row can be kept.
    """

    piece: Piece
    others: tuple[ir.Value, ...]
    batched: tuple[bool, ...]


def loop_node(
    name: str,
    core: Piece,
    *,
    state: Sequence[ir.Value],
    context: Sequence[ir.Value],
    tables: Mapping[str, ir.Value],
    trip_count: ir.Value,
    constant: AddConstant,
    early: EarlyExit | None = None,
) -> list[ir.Node]:
    """Return the nodes that repeat ``core``: one Loop, with an early exit those that start it.

    Requires: the nodes of ``core`` are called ``<name>/...``; the types and shapes of its inputs are known.

    Ensures: the nodes of ``core`` and of the halt are used up; weights stay where they are; ``view_core`` of
    the graph that the nodes are put into finds the parts again.

    Args:
        name: Of the Loop; its nodes are named ``<name>/...``.
        core: (state, context, one timestep row of each table) -> state.
        state: What the Loop starts from.
        context: Values of the graph around that the core reads.
        tables: Values (loops, ...) by the name of the timestep row.
        trip_count: int64 ().
        constant: Adds the constants that are needed.
        early: What ends the Loop before the trip count.

    Returns:
        Nodes in order, the Loop last. Its outputs are the states, with an early exit also which batch
        rows are done, bool (batch,), and how many iterations each ran, int64 (batch,).
    """
    prefix = "" if name == CORE_NAME else f"{name}/"
    iteration = _value(f"{prefix}iteration", INT64, [])
    condition = _value(f"{prefix}condition", BOOL, [])
    carried = [
        ir.Value(name=f"{prefix}state.{i}", type=value.type, shape=copy_shape(core.inputs[i].shape))
        for i, value in enumerate(state)
    ]
    gathers = [_gather_row(name, row, table, iteration) for row, table in tables.items()]
    rows = [gather.outputs[0] for gather in gathers]
    connect(core.inputs, [*carried, *context, *rows], core)
    next_states, passed = _own_outputs(name, core, carried)
    starting: list[ir.Node] = []
    first: list[ir.Value] = []
    extra: list[ir.Value] = []
    if early is None:
        go_on = _node("Identity", [condition], f"{name}/condition", f"{prefix}condition.next")
        _as(go_on.outputs[0], BOOL, [])
        nodes, ends = [go_on], [go_on.outputs[0]]
    else:
        starting, first = _start_rows(name, state[early.batched.index(True)])
        extra = [_value("done", BOOL, ["batch"]), _value("iterations_so_far", INT64, ["batch"])]
        kept, keeping = _keep_done(name, carried, next_states, extra[0], early, constant)
        halt, ends = _ask(name, kept, carried, extra, early, constant)
        next_states, nodes = kept, []
        passed = [*passed, *keeping, *halt]
    body = ir.Graph(
        [iteration, condition, *carried, *extra],
        [ends[0], *next_states, *ends[1:]],
        nodes=[*nodes, *gathers, *core.nodes, *passed],
        name=name,
    )
    always = constant("loopedge.true", np.array(True))
    loop = ir.Node(
        "",
        "Loop",
        [trip_count, always, *state, *first],
        [ir.AttrGraph("body", body)],
        num_outputs=len(carried) + len(extra),
        name=name,
    )
    for i, (output, value) in enumerate(zip(loop.outputs, [*carried, *extra], strict=True)):
        output.name = f"{name}/state.{i}" if i < len(carried) else f"{name}/{value.name}"
        output.type, output.shape = value.type, copy_shape(value.shape)
    return [*starting, loop]


def _gather_row(name: str, row: str, table: ir.Value, iteration: ir.Value) -> ir.Node:
    gather = ir.node("Gather", [table, iteration], attributes={"axis": 0}, name=f"{name}/row.{row}")
    gather.outputs[0].name = f"{name}/row.{row}"
    gather.outputs[0].type = table.type
    gather.outputs[0].shape = None if table.shape is None else ir.Shape(list(table.shape)[1:])
    return gather


def _own_outputs(
    name: str, core: Piece, carried: Sequence[ir.Value]
) -> tuple[list[ir.Value], list[ir.Node]]:
    """A body output must be made in the body: a state that passes through gets an Identity."""
    made = {output for node in core.nodes for output in node.outputs}
    passed: list[ir.Node] = []
    states: list[ir.Value] = []
    for i, output in enumerate(core.outputs):
        value = output
        if output not in made or output in states:
            node = _node("Identity", [output], f"{name}/pass.{i}", f"{name}/state.{i}.next")
            node.outputs[0].type, node.outputs[0].shape = output.type, copy_shape(output.shape)
            passed.append(node)
            value = node.outputs[0]
        states.append(value)
    return states, passed


def _start_rows(name: str, state: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
    """Make what a Loop with an early exit starts from: no row is done, none has run."""
    shape = make_node("Shape", [state], f"{name}/rows", {"start": 0, "end": 1})
    none_done = make_node(
        "ConstantOfShape", [shape.outputs[0]], f"{name}/none_done", {"value": ir.tensor([False])}
    )
    zeros = make_node(
        "ConstantOfShape",
        [shape.outputs[0]],
        f"{name}/none_run",
        {"value": ir.tensor(np.zeros(1, np.int64))},
    )
    _as(shape.outputs[0], INT64, [1])
    _as(none_done.outputs[0], BOOL, ["batch"])
    _as(zeros.outputs[0], INT64, ["batch"])
    return [shape, none_done, zeros], [none_done.outputs[0], zeros.outputs[0]]


def _keep_done(
    name: str,
    carried: Sequence[ir.Value],
    states: Sequence[ir.Value],
    done: ir.Value,
    early: EarlyExit,
    constant: AddConstant,
) -> tuple[list[ir.Value], list[ir.Node]]:
    """Let batch rows that are done keep their state."""
    kept, nodes = [], []
    for i, (old, new, batched) in enumerate(zip(carried, states, early.batched, strict=True)):
        if not batched:
            kept.append(new)
            continue
        rows, rank = done, len(old.shape or ())
        if rank > 1:
            axes = constant(f"loopedge.axes.1-{rank - 1}", np.arange(1, rank, dtype=np.int64))
            spread = make_node("Unsqueeze", [done, axes], f"{name}/done.{rank}d.{i}")
            _as(spread.outputs[0], BOOL, ["batch", *[1] * (rank - 1)])
            nodes.append(spread)
            rows = spread.outputs[0]
        choosing = _choose(rows, old, new, f"{KEEP_PREFIX}{i}")
        for node in choosing:
            node.outputs[0].type, node.outputs[0].shape = old.type, copy_shape(old.shape)
        choosing[-1].outputs[0].name = f"{name}/state.{i}.kept"
        nodes += choosing
        kept.append(choosing[-1].outputs[0])
    return kept, nodes


def _choose(rows: ir.Value, old: ir.Value, new: ir.Value, name: str) -> list[ir.Node]:
    """Return the nodes that take ``old`` where ``rows`` says so; ONNX Runtime has no Where of bools."""
    if old.dtype != BOOL:
        return [make_node("Where", [rows, old, new], name)]
    stays = make_node("And", [rows, old], f"{name}.stays")
    others = make_node("Not", [rows], f"{name}.others")
    moves = make_node("And", [others.outputs[0], new], f"{name}.moves")
    return [stays, others, moves, make_node("Or", [stays.outputs[0], moves.outputs[0]], name)]


def _ask(
    name: str,
    states: Sequence[ir.Value],
    carried: Sequence[ir.Value],
    extra: Sequence[ir.Value],
    early: EarlyExit,
    constant: AddConstant,
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Ask halt after an iteration; return its nodes, and (go on, done, iterations)."""
    done, so_far = extra
    piece = early.piece
    connect(piece.inputs, [*states, *carried, *early.others], piece)
    (halted,) = piece.outputs
    either = _node("Or", [done, halted], f"{name}/done", "done.next")
    running = make_node("Not", [done], f"{name}/running")
    one_more = make_node("Cast", [running.outputs[0]], f"{name}/one_more", {"to": INT64})
    count = _node("Add", [so_far, one_more.outputs[0]], f"{name}/count", "iterations.next")
    numbers = make_node("Cast", [either.outputs[0]], f"{name}/done_rows", {"to": INT64})
    least = make_node("ReduceMin", [numbers.outputs[0]], f"{name}/least", {"keepdims": 0})
    zero = constant("loopedge.zero", np.array(0, np.int64))
    go_on = _node("Equal", [least.outputs[0], zero], f"{name}/condition", "condition.next")
    for node, dtype, shape in (
        (either, BOOL, ["batch"]),
        (running, BOOL, ["batch"]),
        (one_more, INT64, ["batch"]),
        (count, INT64, ["batch"]),
        (numbers, INT64, ["batch"]),
        (least, INT64, []),
        (go_on, BOOL, []),
    ):
        _as(node.outputs[0], dtype, shape)
    nodes = [*piece.nodes, either, running, one_more, count, numbers, least, go_on]
    return nodes, [go_on.outputs[0], either.outputs[0], count.outputs[0]]


def _node(op_type: str, inputs: Sequence[ir.Value], name: str, output: str) -> ir.Node:
    node = make_node(op_type, inputs, name)
    node.outputs[0].name = output
    return node


def _value(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _as(value: ir.Value, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
