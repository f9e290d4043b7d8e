"""What tying saves: weights that are stored once and read in every iteration."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.scans.scan_core import ScanCore
from loopedge.graph.core.scans.scan_view import scans_among
from loopedge.graph.shapes import known_shape
from loopedge.graph.weights import all_initializers, stored_bytes, weight_bytes, weights_read

__all__ = ["TiedWeight", "nodes_with_runs", "tied_weights", "untied_bytes"]

PAST = re.compile(r"past\.([a-z][a-z0-9]*\.\d+)\.")
SLOT_RANK = 4
"""Axes of keys or values of one iteration: (batch, kv heads, length, head size)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedWeight:
    """A weight that is stored once and read ``uses`` times in one inference."""

    name: str
    uses: int
    bytes: int


def tied_weights(model: ir.Model) -> list[TiedWeight]:
    """List the weights that are stored once and read more than once, largest first."""
    reads: dict[ir.Value, int] = {}
    tables = {value for core in Cores(model) for value in core.tables.values()}
    for node, runs in nodes_with_runs(model):
        for value in weights_read(node):
            if value not in tables:
                reads[value] = reads.get(value, 0) + runs
    tied = [
        TiedWeight(name=value.name or "", uses=uses, bytes=stored_bytes(value))
        for value, uses in reads.items()
        if uses > 1
    ]
    return sorted(tied, key=lambda weight: (-weight.bytes, weight.name))


def nodes_with_runs(model: ir.Model, loops: int | None = None) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node with how often it runs in one inference, as far as it is known.

    Args:
        model: The graph.
        loops: Iterations of the cores, where others than its own run.
    """
    cores = Cores(model)
    trips = {core.loop.node: loops or core.trips for core in cores.loops}
    for core in cores.scans:
        trips |= _inner_scans(core)
        trips[core.scan.node] = loops or core.iterations or 1
    yield from _nodes_with_runs(model.graph, 1, trips)


def _inner_scans(core: ScanCore) -> dict[ir.Node, int]:
    """Return how often the Scans inside a core run: as often as the rows of the cache that they read are many."""
    generation = core.metadata.generate
    slots = {} if generation is None else {slot.name: slot.inner for slot in generation.slots}
    found = {}
    for scan in scans_among(core.nodes):
        past = next((value for value in scan.pasts if value is not None), None)
        name = PAST.match("" if past is None else past.name or "")
        rank = len(known_shape(past) or ())
        inner = slots.get(name[1], []) if name else []
        if SLOT_RANK < rank <= SLOT_RANK + len(inner):
            found[scan.node] = inner[len(inner) - (rank - SLOT_RANK)]
    return found


def _nodes_with_runs(
    graph: ir.Graph, runs: int, trips: Mapping[ir.Node, int]
) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node with how often it runs in one inference, as far as it is known."""
    for node in graph:
        yield node, runs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inside = runs * _trips(node, trips)
                yield from _nodes_with_runs(attribute.as_graph(), inside, trips)


def _trips(node: ir.Node, trips: Mapping[ir.Node, int]) -> int:
    """Return how often the body of a node runs; 1 where it is no Loop, or nothing says."""
    if node in trips:
        return trips[node]
    return (LoopView(node).most_iterations or 1) if node.op_type == "Loop" else 1


def untied_bytes(model: ir.Model) -> int:
    """Return what the weights would take if every iteration held its own copy of those of its core."""
    stored = {value.name: value for value in all_initializers(model)}
    extra = sum(
        (iterations - 1) * stored_bytes(stored[name])
        for name, iterations in Cores(model).weights.items()
        if name in stored
    )
    return weight_bytes(model) + extra
