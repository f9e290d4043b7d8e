"""What tying saves: weights that are stored once and read in every iteration."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.view import UNBOUNDED, LoopCore, view_core
from loopedge.graph.weights import all_initializers, stored_bytes, weight_bytes, weights_read

__all__ = ["TiedWeight", "tied_weights", "untied_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedWeight:
    """A weight that is stored once and read ``uses`` times in one inference."""

    name: str
    uses: int
    bytes: int


def tied_weights(model: ir.Model) -> list[TiedWeight]:
    """List the weights that are stored once and read more than once, largest first."""
    reads: dict[ir.Value, int] = {}
    core = view_core(model)
    trips = core.trips if isinstance(core, LoopCore) else None
    for node, runs in _nodes_with_runs(model.graph, 1, trips):
        for value in weights_read(node):
            reads[value] = reads.get(value, 0) + runs
    tied = [
        TiedWeight(name=value.name or "", uses=uses, bytes=stored_bytes(value))
        for value, uses in reads.items()
        if uses > 1
    ]
    return sorted(tied, key=lambda weight: (-weight.bytes, weight.name))


def _nodes_with_runs(
    graph: ir.Graph, runs: int, trips: int | None
) -> Iterator[tuple[ir.Node, int]]:
    """Yield each node with how often it runs in one inference.

    ``trips`` is the trip count of the Loops of ``graph``; None: each holds its own.
    """
    for node in graph:
        yield node, runs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inside = runs * (_constant_trips(node) if trips is None else trips)
                yield from _nodes_with_runs(attribute.as_graph(), inside, None)


def _constant_trips(node: ir.Node) -> int:
    count = LoopView(node).trip_count if node.op_type == "Loop" else None
    return count if count is not None and 0 < count < UNBOUNDED else 1


def untied_bytes(model: ir.Model) -> int:
    """Return what the weights would take if every iteration held its own copy of the core's."""
    stored = {value.name: value for value in all_initializers(model)}
    extra = sum(
        (iterations - 1) * stored_bytes(stored[name])
        for name, iterations in view_core(model).weights.items()
        if name in stored
    )
    return weight_bytes(model) + extra
