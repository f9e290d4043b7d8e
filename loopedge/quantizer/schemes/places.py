"""Where a linear stands in a graph: in the core, at the inputs, at the outputs, or between them."""

from collections.abc import Iterator
from typing import Literal

import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.probe import activation_of
from loopedge.graph.operators import CONTROL_FLOW, PRODUCTS, Fact, having
from loopedge.graph.weights import Linear, linears

__all__ = ["Place", "places_of"]

Place = Literal["core", "inputs", "outputs", "unbounded", "between"]
PLACES: tuple[Place, ...] = ("core", "inputs", "outputs", "unbounded", "between")
"""Linears that share a weight stand together, at the first of their places."""

BOUNDING = having(Fact.NORM) | having(Fact.SOFTMAX)
"""What they give is bounded, whatever they read."""

MIXING = PRODUCTS | having(Fact.RECURRENT) | CONTROL_FLOW
"""What they give is no longer what they read, under another scale or shape."""


def places_of(model: ir.Model) -> dict[str, Place]:
    """Return the place of every linear, by node name.

    ``core``: it runs once per iteration of a core. ``inputs``: it reads a float input of the graph through views, elementwise
    operators, concatenations and sums, so that no weight and no norm stands between. ``outputs``: what it gives
    reaches an output of the graph without another product. ``unbounded``: it reads what other products outside of the core
    made of a float input, and no norm stands between. ``between``: the others. One that is both at
    the inputs and at the outputs counts as ``outputs``. Of a graph in which no core is known, the
    linears between, unbounded ones too, stand where a core's do: they count as ``core``.

    Args:
        model: A float graph, in any form. Not modified.
    """
    found = linears(model)
    walk = _Walk(model)
    together: dict[ir.Value, Place] = {}
    for item in found:
        place = walk.place(item)
        known = together.get(item.weight, place)
        together[item.weight] = min(place, known, key=PLACES.index)
    return {item.node.name or "": together[item.weight] for item in found}


class _Walk:
    """Follows values of a graph from node to node, up to the cores and to products."""

    def __init__(self, model: ir.Model) -> None:
        self._cores = Cores(model)
        stored = set(model.graph.initializers.values())
        self._inputs = {
            value for value in model.graph.inputs if _is_float(value) and value not in stored
        }
        self._outputs = set(model.graph.outputs)
        self._inner = dict(_inner_outputs(model))

    def place(self, item: Linear) -> Place:
        """Return the place of one linear, whatever else reads its weight."""
        if self._cores.contains(item.node):
            return "core"
        if self._reaches_output(item.node):
            return "outputs"
        read = activation_of(item.node)
        if self._reads_input(read):
            return "inputs"
        if not self._cores:
            return "core"
        return "unbounded" if self._reads_input(read, products=True) else "between"

    def _reads_input(self, value: ir.Value | None, *, products: bool = False) -> bool:
        """Tell whether a value is made of a float input, with or without products on the way."""
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            current = waiting.pop()
            if current is None or current in seen:
                continue
            seen.add(current)
            if current in self._inputs:
                return True
            maker = current.producer()
            if maker is None or maker.op_type in BOUNDING | having(Fact.SIZE):
                continue
            if self._repeats(maker) if products else self._ends(maker):
                continue
            waiting += maker.inputs
        return False

    def _reaches_output(self, linear: ir.Node) -> bool:
        waiting, seen = list(linear.outputs), set[ir.Value]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self._outputs:
                return True
            if current in self._inner:
                waiting += self._inner[current].outputs
            for reader in current.consumers():
                if not self._ends(reader) and reader.op_type not in having(Fact.SIZE):
                    waiting += reader.outputs
        return False

    def _ends(self, node: ir.Node) -> bool:
        return node.op_type in MIXING or self._repeats(node)

    def _repeats(self, node: ir.Node) -> bool:
        return node.op_type in CONTROL_FLOW or self._cores.contains(node)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _inner_outputs(model: ir.Model) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Yield what the branches of an If give, each with the If."""
    for node in model.graph.all_nodes():
        if node.op_type not in having(Fact.BRANCH):
            continue
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for value in attribute.as_graph().outputs:
                    yield value, node
