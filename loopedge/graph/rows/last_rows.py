"""The last iteration computes only the rows that the coda reads.

A forecaster reads the last position of the final state, a classifier the first, a language model that
generates the last. Keys and values of the last iteration then still need all rows, but queries, what
attention gives, the output projection and the MLP only those that are read. The Loop runs one time less;
the last iteration stands behind it, reads the same weights, and is named ``core.last/...``.

Exact: only operators that treat every row alone compute less (`loopedge.graph.rows.row_inputs`).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.unrolling import (
    LAST_PREFIX,
    copy_iteration,
    find_core,
    iteration_number,
    runs_on,
)
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.metadata import LastRows, read_metadata, write_metadata
from loopedge.graph.rows.coda import CODA_PREFIX, CodaReading, read_coda, select_first
from loopedge.graph.rows.row_inputs import PRODUCTS
from loopedge.graph.rows.row_selection import Demand, RowSelection, demand_rows, restrict_rows

__all__ = ["LastRowsOutcome", "compute_last_rows", "restore_last_iteration", "selection_of"]

BEFORE_LAST = "loops/before_last"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRowsOutcome:
    """What became of the last iteration.

    ``positions`` are the rows that are read, ``narrowed`` of ``products`` (matrix products and attention
    of one iteration) compute them alone; ``reason`` says why nothing changed, where nothing did.
    """

    applied: bool
    positions: str | None = None
    narrowed: int = 0
    products: int = 0
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the key ``last_rows`` of docs/cli.md."""
        return asdict(self)


def compute_last_rows(model: ir.Model) -> LastRowsOutcome:
    """Let the last iteration compute only the rows that the coda reads, in place.

    Args:
        model: The loop form, float or quantized, as loopedge writes it.

    Returns:
        What was done, or why nothing was.

    Ensures: weights and tables stay stored once, in the main graph; where nothing is gained, the graph
    is as it was.
    """
    metadata, loop = read_metadata(model.metadata_props), find_core(model)
    refused = _why_not(model, loop)
    if refused is not None or loop is None:
        return LastRowsOutcome(applied=False, reason=refused)
    reading = read_coda(model.graph, loop)
    if isinstance(reading, str):
        return LastRowsOutcome(applied=False, reason=reading)
    if not reading.axes:
        return LastRowsOutcome(
            applied=False, reason=f"the coda reads all positions: {_who(reading)}"
        )
    body = loop.attributes["body"].as_graph()
    wanted = {body.outputs[1 + state]: axis for state, axis in reading.axes.items()}
    demand = demand_rows(list(body), wanted, [body.outputs[1 + i] for i in reading.whole])
    products = [node for node in body if node.op_type in PRODUCTS]
    narrowed = sum(node in demand.plans for node in products)
    told = LastRowsOutcome(
        applied=False,
        positions=str(reading.selection),
        products=len(products),
        reason=_nothing_gained(demand, products)
        if not narrowed
        else _too_many(reading.selection, metadata.trained_length),
    )
    if told.reason is not None:
        return told
    taken = select_first(model.graph, reading)
    _write_last(model.graph, loop, reading, taken)
    rows = reading.selection
    kept = LastRows(
        axes=reading.axes,
        whole=reading.whole,
        indices=None if rows.indices is None else list(rows.indices),
        start=rows.start,
        end=rows.end,
    )
    write_metadata(metadata.model_copy(update={"last_rows": kept}), model.metadata_props)
    common.RemoveUnusedNodesPass()(model)
    return replace(told, applied=True, narrowed=narrowed)


def selection_of(kept: LastRows) -> RowSelection:
    """Return the rows that the metadata of an artifact tells of."""
    indices = None if kept.indices is None else tuple(kept.indices)
    return RowSelection(indices=indices, start=kept.start, end=kept.end)


def restore_last_iteration(model: ir.Model) -> bool:
    """Undo `compute_last_rows`, in place: the Loop runs all iterations, and rows are selected behind it.

    Returns:
        Whether anything changed.
    """
    metadata, loop = read_metadata(model.metadata_props), find_core(model)
    if metadata.last_rows is None or loop is None or metadata.loops is None:
        return False
    graph, kept = model.graph, metadata.last_rows
    rows = selection_of(kept)
    made = {output.name: output for node in graph for output in node.outputs}
    for state, axis in kept.axes.items():
        output = loop.outputs[state]
        taken = rows.node(graph, output, axis, f"{CODA_PREFIX}rows.{output.name}")
        graph.insert_after(loop, taken)
        ir.convenience.replace_all_uses_with(made[f"{LAST_PREFIX}state.{state}"], taken.outputs[0])
    for state in kept.whole:
        ir.convenience.replace_all_uses_with(
            made[f"{LAST_PREFIX}state.{state}"], loop.outputs[state]
        )
    count = loop.inputs[0]
    if count is not None:
        loop.replace_input_with(0, _trip_count(graph, count, metadata.loops))
    write_metadata(metadata.model_copy(update={"last_rows": None}), model.metadata_props)
    common.RemoveUnusedNodesPass()(model)
    return True


def _trip_count(graph: ir.Graph, last: ir.Value, loops: int) -> ir.Value:
    """Return the trip count whose last iteration has this number."""
    less = last.producer()
    if less is None or less.inputs[0] is None:
        return add_initializer(graph, "loopedge.loops", np.array(loops, np.int64))
    return less.inputs[0]


def _why_not(model: ir.Model, loop: ir.Node | None) -> str | None:
    """Say why the last iteration of a graph cannot stand behind its Loop."""
    metadata = read_metadata(model.metadata_props)
    if loop is None or metadata.form != "loop":
        return "the graph is not in the loop form that loopedge writes"
    if metadata.last_rows is not None:
        return "the last iteration stands behind the Loop already"
    if metadata.exit is not None or not runs_on(loop.attributes["body"].as_graph()):
        return "with an early exit nobody knows which iteration is the last"
    if len(loop.outputs) != len(loop.inputs) - 2:
        return "the Loop stacks outputs"
    return None


def _too_many(rows: RowSelection, length: int | None) -> str | None:
    """Say that so many rows are read that the copies of them would cost what they save."""
    most = rows.most
    if most is None:
        return f"the coda reads positions {rows}, which grow with the sequence"
    if length is not None and 2 * most > length > 1:
        return f"the coda reads {most} positions of the {length} that the model was trained for"
    return None


def _who(reading: CodaReading) -> str:
    """Name a node of the coda that reads other positions than those that are given out."""
    mixing = [node for node in reading.demand.plans if node.op_type == "Attention"]
    nodes = [*mixing, *reading.demand.mixing, *reading.nodes, *reading.readers]
    return f"{nodes[0].name} ({nodes[0].op_type}) needs them"


def _nothing_gained(demand: Demand, products: list[ir.Node]) -> str:
    if not products:
        return "the core holds no matrix product"
    first = demand.mixing[0] if demand.mixing else None
    if first is None:
        return "no product of the core lies between the selected rows and the state"
    if first.op_type.startswith("DynamicQuantize"):
        return f"{first.name} ({first.op_type}) takes its range over all positions"
    return f"{first.name} ({first.op_type}) is not known to keep positions apart"


def _write_last(
    graph: ir.Graph, loop: ir.Node, reading: CodaReading, taken: dict[ir.Value, ir.Value]
) -> None:
    """Let the Loop run one time less and write its last iteration behind it."""
    last = _last_number(graph, loop)
    loop.replace_input_with(0, last)
    always = add_initializer(graph, "loopedge.true", np.array(True))
    body = loop.attributes["body"].as_graph()
    nodes, states = copy_iteration(graph, body, LAST_PREFIX, [last, always, *loop.outputs])
    graph.insert_after(loop, nodes)
    named = {i: state for i, state in enumerate(states) if state is not None}
    demand = demand_rows(
        nodes,
        {named[i]: axis for i, axis in reading.axes.items()},
        [named[i] for i in reading.whole],
    )
    selected = restrict_rows(
        graph, nodes, demand, reading.selection, before=nodes[0], prefix=LAST_PREFIX
    )
    step = set(nodes)
    for i in reading.axes:
        made = selected.get(named[i], named[i])
        ir.convenience.replace_all_uses_with(taken[loop.outputs[i]], made)
        made.name = f"{LAST_PREFIX}state.{i}"
    for i in reading.whole:
        for node, index in list(loop.outputs[i].uses()):
            if node not in step:
                node.replace_input_with(index, named[i])
        named[i].name = f"{LAST_PREFIX}state.{i}"


def _last_number(graph: ir.Graph, loop: ir.Node) -> ir.Value:
    """Return the number of the last iteration, which is the trip count of the Loop without it."""
    count = loop.inputs[0]
    tensor = None if count is None else ir.convenience.get_const_tensor(count)
    if tensor is not None:
        return iteration_number(graph, int(tensor.numpy().item()) - 1)
    one = add_initializer(graph, "loopedge.1", np.array(1, np.int64))
    less = make_node("Sub", [count, one], BEFORE_LAST)
    less.outputs[0].type, less.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
    insert_before(loop, less)
    return less.outputs[0]
