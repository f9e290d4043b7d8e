"""The products of a graph that read stored weights, in the order in which they depend on each other.

Exporters shuffle nodes, so the order of the file says little. What counts is the depth of a product: the most
products with weights on a way from the inputs to it, itself among them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.captures import bodies_of
from loopedge.graph.operators import OPERANDS, Fact, having
from loopedge.graph.rolling.copies import EqualCopies
from loopedge.graph.weights import is_weight

__all__ = ["OrderedReads", "Read", "Weight", "ordered_reads"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weight:
    """A stored weight with two dimensions above one; equal copies, turned ones too, are one weight.

    Attributes:
        place: Among the weights that are read, in the order of the graph.
        name: Of the stored tensor that is read first.
        shape: As stored.
        bytes: Stored once.
    """

    place: int
    name: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """A product that reads a weight.

    Attributes:
        node: The product.
        weight: What it reads.
        depth: Products with weights on the longest way to it, itself among them.
        chained: Whether it depends on an earlier product with the same weight.
    """

    node: ir.Node
    weight: Weight
    depth: int
    chained: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """What it has in common with the same product of another block: operator and shape of the weight."""
        return self.node.domain, self.node.op_type, self.weight.shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrderedReads:
    """The products that read weights, by depth, and the graph that they stand in.

    Attributes:
        graph: The main graph, local functions written out.
        reads: Products of the main graph. Equal ones, of equal inputs, stand for one; those in bodies are not among them.
    """

    graph: ir.Graph
    reads: Sequence[Read]

    def of(self, weight: Weight) -> list[Read]:
        """Return the products that read a weight."""
        return [read for read in self.reads if read.weight is weight]


def ordered_reads(model: ir.Model, copies: Iterable[EqualCopies] = ()) -> OrderedReads:
    """Follow the stored weights of the main graph to the products that read them.

    Args:
        model: Any graph, its nodes in order. Not modified.
        copies: Stored weights that hold the same.
    """
    if model.functions:
        model = model.clone()
        common.InlinePass()(model)
    same = {name: each.names[0] for each in copies for name in (*each.names, *each.transposed)}
    walk = _Walk(same)
    for node in model.graph:
        walk.visit(node)
    return OrderedReads(graph=model.graph, reads=sorted(walk.reads, key=_order(walk.reads)))


def _order(reads: Iterable[Read]) -> Callable[[Read], tuple[int, str, int, int]]:
    """Return the key that sorts products: side by side, those of one kind stand together, tied ones first."""
    uses: dict[Weight, int] = {}
    for read in reads:
        uses[read.weight] = uses.get(read.weight, 0) + 1
    return lambda read: (read.depth, repr(read.kind), -uses[read.weight], read.weight.place)


class _Walk:
    """Goes through the nodes once; what is computed of stored tensors alone is a weight still."""

    def __init__(self, same: dict[str, str]) -> None:
        self.reads: list[Read] = []
        self._same = same
        self._weights: dict[str, Weight] = {}
        self._roots: dict[ir.Value, ir.Value | None] = {}
        self._numbers: dict[object, int] = {}
        self._number: dict[ir.Value, int] = {}
        self._depth: dict[ir.Value, int] = {}
        self._above: dict[ir.Value, int] = {}
        """Weights that were read on the way to a value, a bit each."""

    def visit(self, node: ir.Node) -> None:
        """Note what a node computes, and what it reads."""
        bodies = list(bodies_of(node))
        inputs = [value for value in node.inputs if value is not None]
        alone = bool(bodies) or node.op_type in having(Fact.RANDOM)
        inputs += _captured(node, bodies)
        known = not alone and self._number_outputs(node, inputs)
        if not alone and self._is_stored(node, inputs):
            return
        depth = max((self._depth.get(value, 0) for value in inputs), default=0)
        above = 0
        for value in inputs:
            above |= self._above.get(value, 0)
        weight = self._weight_of(node)
        if weight is not None:
            depth += 1
            if not known:
                chained = bool(above >> weight.place & 1)
                self.reads.append(Read(node=node, weight=weight, depth=depth, chained=chained))
            above |= 1 << weight.place
        for output in node.outputs:
            self._depth[output], self._above[output] = depth, above

    def _is_stored(self, node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
        """Tell whether a node computes of stored tensors alone, and note which one it is made of."""
        roots = [self._root(value) for value in inputs]
        stored = [value in self._roots or value.const_value is not None for value in inputs]
        if not all(stored) or any(value.is_graph_input() for value in inputs):
            return False
        largest = max((root for root in roots if root is not None), key=_size, default=None)
        if largest is None and node.op_type == "Constant":
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            largest = ir.Value(name=node.outputs[0].name, const_value=tensor)
            largest = largest if _is_matrix(largest) else None
        self._roots.update(dict.fromkeys(node.outputs, largest))
        return True

    def _root(self, value: ir.Value) -> ir.Value | None:
        """Return the weight that a stored value is made of."""
        if value in self._roots:
            return self._roots[value]
        return value if _is_matrix(value) and not value.is_graph_input() else None

    def _weight_of(self, node: ir.Node) -> Weight | None:
        """Return the weight that a product multiplies with."""
        for place in OPERANDS.get(node.op_type, ()):
            value = node.inputs[place] if place < len(node.inputs) else None
            root = None if value is None else self._root(value)
            if root is not None and root.const_value is not None:
                name = self._same.get(root.name or "", root.name or "")
                if name not in self._weights:
                    self._weights[name] = Weight(
                        place=len(self._weights),
                        name=root.name or "",
                        shape=tuple(int(size) for size in root.const_value.shape),  # type: ignore[arg-type]
                        bytes=int(root.const_value.nbytes),
                    )
                return self._weights[name]
        return None

    def _number_outputs(self, node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
        """Give what a node computes its number; tell whether an equal node computed it before."""
        names = [self._same.get(value.name or "", value.name) for value in inputs]
        key = (
            node.domain,
            node.op_type,
            tuple(sorted((name, _key(node, name)) for name in node.attributes)),
            tuple(self._number.get(value, name) for value, name in zip(inputs, names, strict=True)),
            tuple(value is None for value in node.inputs),
        )
        known = key in self._numbers
        number = self._numbers.setdefault(key, len(self._numbers) * MOST_OUTPUTS)
        for place, output in enumerate(node.outputs):
            self._number[output] = number + place
        return known


MOST_OUTPUTS = 1 << 20
"""Numbers kept for the outputs of one node."""


def _key(node: ir.Node, name: str) -> str:
    attribute = node.attributes[name]
    if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return repr(attribute.value)
    tensor = attribute.as_tensor()
    return repr(tensor.numpy().tolist()) if tensor.size <= 64 else str(id(tensor))


def _captured(node: ir.Node, bodies: Iterable[ir.Graph]) -> list[ir.Value]:
    """Return what the bodies of a node read of the graph around them."""
    return [
        value
        for body in bodies
        for inside in body.all_nodes()
        for value in inside.inputs
        if value is not None and value.graph is node.graph
    ]


def _is_matrix(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or not is_weight(value):
        return False
    return sum(int(size) > 1 for size in tensor.shape) > 1  # type: ignore[arg-type]


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.size)
