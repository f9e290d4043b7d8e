"""What aligning iterations asks of the nodes of one graph: signatures, short hashes, who depends on whom."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import onnx_ir as ir

from loopedge.graph.operators import Fact, having

__all__ = [
    "COMMUTATIVE",
    "NodeFacts",
    "captured",
    "commutes",
    "holds_body",
    "is_constant",
    "is_matrix",
    "shown",
    "signature",
]

RANDOM = having(Fact.RANDOM)

COMMUTATIVE = {"Add", "And", "Equal", "Max", "Mean", "Min", "Mul", "Or", "Sum", "Xor"}
"""Operators whose inputs may be swapped, bit by bit."""

HASH_STEPS, NEAR_STEPS = 4, 2
"""Nodes behind a node that its hash looks at, and its near hash."""

BODIES = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def is_constant(value: ir.Value | None) -> bool:
    """Tell whether a value is stored, and no caller can overwrite it."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def is_matrix(value: ir.Value) -> bool:
    """Tell whether a constant has at least two dimensions above one: equal content is no chance then."""
    tensor = value.const_value
    return tensor is not None and sum(int(size) > 1 for size in tensor.shape.numpy()) >= 2


def commutes(node: ir.Node) -> bool:
    """Tell whether the inputs of a node may be swapped."""
    return not node.domain and node.op_type in COMMUTATIVE


def shown(node: ir.Node) -> str:
    """Return what messages call a node: its operator, and its name where it has one."""
    return f"{node.op_type} {node.name or ''}".rstrip()


def holds_body(node: ir.Node) -> bool:
    """Tell whether a node is control flow."""
    return any(attribute.type in BODIES for attribute in node.attributes.values())


def signature(node: ir.Node) -> tuple[Any, ...]:
    """Return what two nodes must share to be one node of a body: operator, attributes, and which inputs are there.

    A node that holds a body is like no other one.
    """
    attributes: list[tuple[Any, ...]] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type in BODIES:
            return (node.op_type, id(node))
        attributes.append((name, str(attribute.type), _comparable(attribute)))
    there = [value is not None for value in node.inputs]
    while there and not there[-1]:
        there.pop()
    return (node.domain, node.op_type, node.overload, tuple(there), tuple(attributes))


def _comparable(attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return (str(value.dtype), tuple(value.shape.numpy()), value.tobytes())
    if isinstance(value, (str, bytes, int, float)):
        return value
    return tuple(value) if isinstance(value, Sequence) else repr(value)


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what the bodies of a node read of the graphs around them, and what they make themselves."""
    for attribute in node.attributes.values():
        if attribute.type not in BODIES:
            continue
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else attribute.as_graphs()
        )
        for graph in graphs:
            yield from graph.outputs
            for inner in graph.all_nodes():
                yield from (value for value in inner.inputs if value is not None)


class NodeFacts:
    """The nodes of one graph, the main one or a body, in an order in which they can run.

    Unchecked: the graph is sorted and does not change meanwhile.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.nodes = list(graph)
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self._signatures: dict[ir.Node, tuple[Any, ...]] = {}

    def signature(self, node: ir.Node) -> tuple[Any, ...]:
        """Return `signature`, computed once."""
        if node not in self._signatures:
            self._signatures[node] = signature(node)
        return self._signatures[node]

    @cached_property
    def reads(self) -> dict[ir.Node, list[ir.Value]]:
        """What each node reads of values that are not stored, its bodies included."""
        return {
            node: [
                value
                for value in (*node.inputs, *captured(node))
                if value is not None and not is_constant(value)
            ]
            for node in self.nodes
        }

    def producer(self, value: ir.Value | None) -> ir.Node | None:
        """Return the node of this graph that makes a value; None: it comes from outside."""
        node = None if value is None else value.producer()
        return node if node in self.place else None

    @cached_property
    def unfolded(self) -> dict[ir.Value, ir.Value]:
        """Values that depend on stored ones alone and stayed nodes, each with the largest it is made of.

        What rounded weights stand for, and weights that are stored in half the bytes.
        """
        found: dict[ir.Value, ir.Value] = {}
        for node in self.nodes:
            inputs = [value for value in node.inputs if value is not None]
            roots = [value if is_constant(value) else found.get(value) for value in inputs]
            known = [root for root in roots if root is not None]
            if (
                not known
                or len(known) < len(inputs)
                or node.op_type in RANDOM
                or any(captured(node))
            ):
                continue
            largest = max(known, key=_bytes)
            found.update((output, largest) for output in node.outputs)
        return found

    def bytes(self, value: ir.Value) -> int:
        """Return the bytes of a stored value, or of what an unfolded one is made of."""
        return _bytes(self.unfolded.get(value, value))

    @property
    def hashes(self) -> dict[ir.Node, int]:
        """The hash of each node and the `HASH_STEPS` behind it, the last of `steps`."""
        return self.steps[HASH_STEPS]

    @property
    def near_hashes(self) -> dict[ir.Node, int]:
        """The same of the `NEAR_STEPS` behind it: a short loop with residuals looks like itself no further."""
        return self.steps[NEAR_STEPS]

    @cached_property
    def steps(self) -> list[dict[ir.Node, int]]:
        """By node a hash of it and those 0, 1, ... behind it; stored values count by type and shape, matrices by themselves."""
        own = {node: self._number(node) for node in self.nodes}
        found = [own]
        for _ in range(HASH_STEPS):
            following = {}
            for node in self.nodes:
                parts = [self._input_hash(value, found[-1]) for value in node.inputs]
                if commutes(node):
                    parts.sort()
                following[node] = hash((own[node], tuple(parts)))
            found.append(following)
        return found

    def _number(self, node: ir.Node) -> int:
        """Return a number for the signature of a node, the same in every run."""
        if holds_body(node):
            return self.place[node]
        text = repr(self.signature(node)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")

    @cached_property
    def _matrices(self) -> dict[ir.Value, int]:
        read = (value for node in self.nodes for value in node.inputs)
        return {
            value: k for k, value in enumerate(dict.fromkeys(filter(is_constant, read))) if value
        }

    def _input_hash(self, value: ir.Value | None, current: dict[ir.Node, int]) -> int:
        if value is None:
            return 1
        if is_constant(value):
            tensor = value.const_value
            assert tensor is not None
            shape = tuple(int(size) for size in tensor.shape.numpy())
            return hash(
                (int(tensor.dtype), shape, self._matrices[value] if is_matrix(value) else -1)
            )
        node = value.producer()
        known = current.get(node) if node is not None else None
        return 2 if node is None or known is None else hash((known, node.outputs.index(value)))

    def depths(self, tied: set[ir.Value]) -> dict[ir.Node, int]:
        """Return how many readers of tied weights stand on the longest way to each node, with itself."""
        depth: dict[ir.Node, int] = {}
        for node in self.nodes:
            before = max(
                (
                    depth[maker]
                    for maker in map(self.producer, self.reads[node])
                    if maker is not None
                ),
                default=0,
            )
            depth[node] = before + any(value in tied for value in node.inputs)
        return depth

    def levels(self, anchors: Sequence[ir.Node]) -> dict[ir.Node, int]:
        """Return the last of the anchors, counted from 1, that each node depends on, with itself; 0: on none."""
        number = {node: t for t, node in enumerate(anchors, start=1)}
        level: dict[ir.Node, int] = {}
        for node in self.nodes:
            before = max(
                (
                    level[maker]
                    for maker in map(self.producer, self.reads[node])
                    if maker is not None
                ),
                default=0,
            )
            level[node] = max(before, number.get(node, 0))
        return level


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.nbytes)
