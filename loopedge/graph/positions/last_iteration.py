"""The last iteration computes only the positions that the coda reads.

A forecaster reads the last position of the final state, a classifier the first, a language model that
generates the last. Keys and values of the last iteration then still need all positions, but queries, what
attention gives, the output projection and the MLP only those that are read. The Loop runs one time less;
the last iteration stands behind it, reads the same weights, and is named ``core.last/...``.

Exact: only operators that treat every position alone compute less (`loopedge.graph.positions.position_inputs`).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.iterations.copying import copy_iteration, share_constants
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import LAST_PREFIX, last_state_name
from loopedge.graph.core.view import CoreView, LoopCore, iteration_number, view_core
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.metadata import ArtifactMetadata, LastPositions, write_metadata
from loopedge.graph.operators import PRODUCTS, Fact, having
from loopedge.graph.positions.coda import CODA_PREFIX, CodaReading, read_coda, select_first
from loopedge.graph.positions.selection import (
    Demand,
    PositionSelection,
    demand_positions,
    restrict_positions,
)

__all__ = [
    "LastIterationOutcome",
    "narrow_last_iteration",
    "restore_last_iteration",
    "selection_of",
]

BEFORE_LAST = "loops/before_last"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastIterationOutcome:
    """What became of the last iteration.

    ``positions`` are the positions that are read, ``narrowed`` of ``products`` (matrix products and attention
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


def narrow_last_iteration(model: ir.Model) -> LastIterationOutcome:
    """Let the last iteration compute only the positions that the coda reads, in place.

    Requires: the loop form as loopedge writes it, float or quantized; another graph is left alone.

    Ensures: weights and tables stay stored once, in the main graph; the metadata says what the last iteration
    computes; where nothing is gained, the graph is as it was.

    Returns:
        What was done, or why nothing was.
    """
    core = view_core(model)
    refused, metadata = _why_not(core), core.metadata
    if refused is not None or not isinstance(core, LoopCore):
        return LastIterationOutcome(applied=False, reason=refused)
    reading = read_coda(model.graph, core.loop)
    if isinstance(reading, str):
        return LastIterationOutcome(applied=False, reason=reading)
    if not reading.axes:
        return LastIterationOutcome(
            applied=False, reason=f"the coda reads all positions: {_who(reading)}"
        )
    nodes, after = list(core.loop.body), core.loop.after
    wanted = {after[state]: axis for state, axis in reading.axes.items()}
    demand = demand_positions(nodes, wanted, [after[state] for state in reading.whole])
    products = [node for node in nodes if node.op_type in PRODUCTS]
    narrowed = sum(node in demand.plans for node in products)
    outcome = LastIterationOutcome(
        applied=False,
        positions=str(reading.selection),
        products=len(products),
        reason=_nothing_gained(demand, products)
        if not narrowed
        else _too_many(reading.selection, metadata.trained_length),
    )
    if outcome.reason is not None:
        return outcome
    taken = select_first(model.graph, reading)
    _write_last(model.graph, core.loop, reading, taken)
    positions = reading.selection
    kept = LastPositions(
        axes=reading.axes,
        whole=reading.whole,
        indices=None if positions.indices is None else list(positions.indices),
        start=positions.start,
        end=positions.end,
    )
    write_metadata(metadata.model_copy(update={"last_rows": kept}), model.metadata_props)
    common.RemoveUnusedNodesPass()(model)
    return replace(outcome, applied=True, narrowed=narrowed)


def selection_of(kept: LastPositions) -> PositionSelection:
    """Return the positions that the metadata of an artifact names."""
    indices = None if kept.indices is None else tuple(kept.indices)
    return PositionSelection(indices=indices, start=kept.start, end=kept.end)


def restore_last_iteration(model: ir.Model) -> bool:
    """Undo `narrow_last_iteration`, in place.

    Requires: nothing.

    Ensures: the Loop runs all iterations, and positions are selected behind it.

    Returns:
        Whether anything changed.
    """
    core = view_core(model)
    metadata = core.metadata
    if (
        not isinstance(metadata, ArtifactMetadata)
        or metadata.last_rows is None
        or not isinstance(core, LoopCore)
    ):
        return False
    graph, loop, kept = model.graph, core.loop, metadata.last_rows
    positions = selection_of(kept)
    for state, axis in kept.axes.items():
        output = loop.final[state]
        taken = positions.node(graph, output, axis, f"{CODA_PREFIX}rows.{output.name}")
        last = core.last_state(state)
        graph.insert_after(loop.node, taken)
        ir.convenience.replace_all_uses_with(last, taken.outputs[0])
    for state in kept.whole:
        ir.convenience.replace_all_uses_with(core.last_state(state), loop.final[state])
    if loop.count is not None:
        loop.replace_count(_trip_count(graph, loop.count, metadata.loops))
    write_metadata(metadata.model_copy(update={"last_rows": None}), model.metadata_props)
    common.RemoveUnusedNodesPass()(model)
    return True


def _trip_count(graph: ir.Graph, last: ir.Value, loops: int) -> ir.Value:
    """Return the trip count whose last iteration has this number."""
    less = last.producer()
    if less is None or less.inputs[0] is None:
        return add_initializer(graph, "loopedge.loops", np.array(loops, np.int64))
    return less.inputs[0]


def _why_not(core: CoreView) -> str | None:
    """Say why the last iteration of a core cannot stand behind its Loop."""
    metadata = core.metadata
    if metadata.cores is not None:
        return "the graph holds several cores"
    if not isinstance(core, LoopCore) or metadata.form != core.form:
        return "the graph is not in the loop form that loopedge writes"
    if metadata.last_rows is not None:
        return "the last iteration stands behind the Loop already"
    if metadata.exit is not None or not core.loop.runs_on:
        return "with an early exit the last iteration is not known beforehand"
    if core.loop.stacked:
        return "the Loop stacks outputs"
    return None


def _too_many(positions: PositionSelection, length: int | None) -> str | None:
    """Say that so many positions are read that the copies of them would cost what they save."""
    most = positions.most
    if most is None:
        return f"the coda reads positions {positions}, which grow with the sequence"
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
        return "no product of the core lies between the selected positions and the state"
    if first.op_type in having(Fact.RANGED):
        return f"{first.name} ({first.op_type}) takes its range over all positions"
    return f"{first.name} ({first.op_type}) is not known to keep positions apart"


def _write_last(
    graph: ir.Graph, loop: LoopView, reading: CodaReading, taken: dict[ir.Value, ir.Value]
) -> None:
    """Let the Loop run one time less and write its last iteration behind it."""
    last = _last_number(graph, loop)
    loop.replace_count(last)
    always = add_initializer(graph, "loopedge.true", np.array(True))
    share_constants(graph, loop.body)
    nodes, states = copy_iteration(loop.body, LAST_PREFIX, [last, always, *loop.final])
    graph.insert_after(loop.node, nodes)
    named = dict(enumerate(states))
    demand = demand_positions(
        nodes,
        {named[i]: axis for i, axis in reading.axes.items()},
        [named[i] for i in reading.whole],
    )
    selected = restrict_positions(
        graph, nodes, demand, reading.selection, before=nodes[0], prefix=LAST_PREFIX
    )
    step = set(nodes)
    for i in reading.axes:
        made = selected.get(named[i], named[i])
        ir.convenience.replace_all_uses_with(taken[loop.final[i]], made)
        made.name = last_state_name(i)
    for i in reading.whole:
        for node, index in list(loop.final[i].uses()):
            if node not in step:
                node.replace_input_with(index, named[i])
        named[i].name = last_state_name(i)


def _last_number(graph: ir.Graph, loop: LoopView) -> ir.Value:
    """Return the number of the last iteration, which is the trip count of the Loop without it."""
    count = loop.count
    tensor = None if count is None else ir.convenience.get_const_tensor(count)
    if tensor is not None:
        return iteration_number(graph, int(tensor.numpy().item()) - 1)
    one = add_initializer(graph, "loopedge.1", np.array(1, np.int64))
    less = make_node("Sub", [count, one], BEFORE_LAST)
    less.outputs[0].type, less.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
    insert_before(loop.node, less)
    return less.outputs[0]
