"""Which positions of the final states the coda reads, and a coda that computes those alone."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.view import LoopCore, view_core
from loopedge.graph.positions.selection import (
    Demand,
    PositionSelection,
    all_inputs,
    demand_positions,
    read_selection,
    renumber_reader,
    restrict_positions,
)
from loopedge.graph.shapes import known_shape

__all__ = ["CODA_PREFIX", "CodaReading", "read_coda", "select_first", "select_positions_first"]

CODA_PREFIX = "coda/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodaReading:
    """How the nodes behind the Loop read its states.

    ``axes`` are the states of which only the positions of ``selection`` are read, each with the axis of the
    positions, where there are such; those in ``whole`` are read whole. ``readers`` take the positions today, ``nodes`` are the others
    behind the Loop, ``first`` is the first of both.
    """

    selection: PositionSelection
    axes: dict[int, int]
    whole: list[int]
    first: ir.Node
    readers: list[ir.Node]
    nodes: list[ir.Node]
    demand: Demand


def read_coda(graph: ir.Graph, loop: LoopView) -> CodaReading | str:
    """Find which positions of the final states are read; where it is not some positions, say why.

    Args:
        graph: The main graph. Not modified.
        loop: The Loop of the core.
    """
    nodes = _behind(graph, loop)
    readers = _first_readers(nodes, loop)
    if not readers:
        return "the coda reads all positions"
    found = [selection for _, selection in readers.values()]
    if all(positions.indices is not None for positions in found):
        indices = dict.fromkeys(index for positions in found for index in positions.indices or ())
        selection = PositionSelection(indices=tuple(indices))
    elif all(positions == found[0] for positions in found):
        selection = found[0]
    else:
        return "the coda reads positions in several ways: " + "; ".join(map(str, found))
    positions: dict[ir.Value, int] = {}
    for node, (axis, _) in readers.items():
        source = node.inputs[0]
        if source is not None and positions.setdefault(source, axis) != axis:
            return "the coda reads positions along several axes"
    others = [node for node in nodes if node not in readers]
    demand = demand_positions(others, positions, graph.outputs)
    axes = {
        i: demand.positions[output]
        for i, output in enumerate(loop.node.outputs)
        if output in demand.positions and output not in demand.whole
    }
    for i, axis in axes.items():
        shape = known_shape(loop.node.outputs[i])
        if shape is None or shape[axis] == 1:
            return "there is one position"
    return CodaReading(
        selection=selection,
        axes=axes,
        whole=[i for i, output in enumerate(loop.node.outputs) if output in demand.whole],
        first=nodes[0],
        readers=list(readers),
        nodes=others,
        demand=demand,
    )


def select_positions_first(model: ir.Model) -> bool:
    """Let the coda start from the positions that it reads in the end, in place: a head computes them alone.

    Requires: the loop form; graphs without a core's Loop are left alone.

    Ensures: where the coda reads few positions alone, they are selected right behind the Loop.

    Returns:
        Whether anything changed.
    """
    core = view_core(model)
    reading = read_coda(model.graph, core.loop) if isinstance(core, LoopCore) else ""
    if isinstance(reading, str) or not reading.demand.plans:
        return False
    if reading.selection.most is None:  # nearly all of them
        return False
    select_first(model.graph, reading)
    return True


def select_first(graph: ir.Graph, reading: CodaReading) -> dict[ir.Value, ir.Value]:
    """Select the positions right behind the Loop, in place; return them by the state that they are of.

    Requires: ``reading`` is of this graph, and nothing changed since.

    Ensures: what reads the selected positions counts among them, instead of among all.
    """
    taken = restrict_positions(
        graph,
        reading.nodes,
        reading.demand,
        reading.selection,
        before=reading.first,
        prefix=CODA_PREFIX,
    )
    for node in reading.readers:
        source = node.inputs[0]
        if source is not None and source in taken:
            node.replace_input_with(0, taken[source])
        renumber_reader(graph, node, reading.selection)
    return taken


def _behind(graph: ir.Graph, loop: LoopView) -> list[ir.Node]:
    """Return the nodes that read what the Loop gives, directly or not, in the order of the graph."""
    made = set(loop.node.outputs)
    found = []
    for node in graph:
        if node is not loop.node and any(value in made for value in all_inputs(node)):
            found.append(node)
            made.update(node.outputs)
    return found


def _first_readers(
    nodes: list[ir.Node], loop: LoopView
) -> dict[ir.Node, tuple[int, PositionSelection]]:
    """Return the Gathers and Slices that let nodes compute less, none behind another.

    Their positions can be traced back to a state, or they are positions and some operators treat them alone.
    """
    candidates = {node: found for node in nodes if (found := read_selection(node)) is not None}
    plain = [node for node in nodes if node not in candidates]
    taken = {node.outputs[0] for node in candidates}
    states = set(loop.node.outputs)
    first = {}
    for node, (axis, positions) in candidates.items():
        source = node.inputs[0]
        shape = known_shape(source)
        if source is None or shape is None:
            continue
        demand = demand_positions(plain, {source: axis})
        gains = not states.isdisjoint(demand.positions) or (
            demand.plans and isinstance(shape[axis], str) and taken.isdisjoint(demand.positions)
        )
        if gains:
            first[node] = axis, positions
    return first
