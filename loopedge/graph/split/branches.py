"""Compute a branch in parts: linears, what stands between them, and the linear that ends it.

A branch is y = f(x W1, x W2, ...) W with an f that never mixes its channels, or mixes only those of one
head. Its channels are split into parts whose products are summed: y = sum of f(x W1[:, i], ...) W[i, :].
What lies between the linears is then as wide as one part, and every weight is still stored once: its
parts take its place. Sums of floats differ in their rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node

__all__ = ["Branch", "Cut", "same_graph_linear", "split_branches", "stored_matrix"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How an initializer is split: the axis, and the equal blocks along it that are split each."""

    axis: int
    blocks: int = 1

    def parts(self, array: npt.NDArray[Any], count: int) -> list[npt.NDArray[Any]]:
        """Return the parts of an array, each with its share of every block."""
        blocks = [
            np.split(block, count, self.axis) for block in np.split(array, self.blocks, self.axis)
        ]
        return [
            np.ascontiguousarray(np.concatenate(shares, self.axis))
            for shares in zip(*blocks, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A branch that can be split.

    ``nodes`` are those before ``down``, in the order of the graph; ``cuts`` the initializers that are
    split; ``attributes`` what a node says otherwise once it computes a part.
    """

    down: ir.Node
    nodes: tuple[ir.Node, ...]
    cuts: Mapping[ir.Value, Cut]
    parts: int
    attributes: Mapping[ir.Node, Mapping[str, Any]] = field(default_factory=dict)


def stored_matrix(model: ir.Model, node: ir.Node | None) -> ir.Value | None:
    """Return the float32 weight [in, out] that a MatMul reads on its right, an initializer of ``model``."""
    if node is None or node.op_type != "MatMul" or node.domain:
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.is_graph_output():
        return None
    stored = model.graph.initializers.get(weight.name or "") is weight
    floats = weight.const_value.dtype == ir.DataType.FLOAT
    return weight if stored and floats and len(weight.const_value.shape) == 2 else None


def same_graph_linear(model: ir.Model, node: ir.Node | None, graph: ir.Graph | None) -> bool:
    """Tell whether a node is a linear with a stored weight and stands in ``graph``."""
    return node is not None and node.graph is graph and stored_matrix(model, node) is not None


def split_branches(model: ir.Model, found: Sequence[Branch]) -> dict[str, int]:
    """Split branches, in place.

    A branch stays whole where one of its initializers is read by anything else, or split in another way.

    Requires: the weights are initializers of the main graph.

    Ensures: a split initializer is gone, its parts have taken its place.

    Args:
        model: A float graph.
        found: Branches that share no node.

    Returns:
        The initializers that were split, by name, each with the number of its parts. Part i of ``w``
        is called ``w.<i>``.
    """
    branches = _consistent(model, found)
    split = {
        value: (cut, branch.parts) for branch in branches for value, cut in branch.cuts.items()
    }
    parts = {value: _store_parts(model.graph, value, *how) for value, how in split.items()}
    for branch in branches:
        _replace(branch, parts)
    for value in split:
        del model.graph.initializers[value.name or ""]
    return {value.name or "": count for value, (_, count) in split.items()}


def _consistent(model: ir.Model, found: Sequence[Branch]) -> list[Branch]:
    """Drop branches until each initializer is split in one way, and read by nothing but them."""
    branches = list(found)
    while True:
        nodes = {node for branch in branches for node in (*branch.nodes, branch.down)}
        ways: dict[ir.Value, set[tuple[Cut, int]]] = {}
        for branch in branches:
            for value, cut in branch.cuts.items():
                ways.setdefault(value, set()).add((cut, branch.parts))
        usable = {
            value
            for value, ways_of_one in ways.items()
            if len(ways_of_one) == 1
            and all(user in nodes for user in value.consumers())
            and _is_free(model.graph, value, next(iter(ways_of_one))[1])
        }
        kept = [branch for branch in branches if usable.issuperset(branch.cuts)]
        if len(kept) == len(branches):
            return kept
        branches = kept


def _is_free(graph: ir.Graph, value: ir.Value, parts: int) -> bool:
    return not any(f"{value.name}.{i}" in graph.initializers for i in range(parts))


def _store_parts(graph: ir.Graph, value: ir.Value, cut: Cut, count: int) -> list[ir.Value]:
    if value.const_value is None:
        raise ValueError(f"{value.name} holds no value")
    arrays = cut.parts(value.const_value.numpy(), count)
    return [add_initializer(graph, f"{value.name}.{i}", array) for i, array in enumerate(arrays)]


def _replace(branch: Branch, parts: Mapping[ir.Value, list[ir.Value]]) -> None:
    """Put all parts and then their sums in the place of a branch.

    Of two inputs ONNX Runtime first computes the one whose node stands later in the file. With the sums
    behind all parts each sum is taken as soon as it can be, and one partial sum is alive at a time;
    each sum behind its part would leave all of them alive until the end (benchmarks/export/activations.py).
    """
    name, new = _name(branch.down), list[ir.Node]()
    products = []
    for i in range(branch.parts):
        made = _part(branch, i, {value: found[i] for value, found in parts.items()})
        products.append(made[-1].outputs[0])
        new += made
    total = products[0]
    for i, product in enumerate(products[1:], 1):
        new.append(make_node("Add", [total, product], f"{name}.sum.{i}"))
        total = new[-1].outputs[0]
        total.type, total.shape = product.type, product.shape
    replace_node(branch.down, new)
    for node in reversed(branch.nodes):
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _part(branch: Branch, i: int, known: Mapping[ir.Value, ir.Value]) -> list[ir.Node]:
    """Return the nodes of part ``i``, the product with the last weight at the end."""
    made, values = [], dict(known)
    for node in (*branch.nodes, branch.down):
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        copy = ir.node(
            node.op_type,
            [value if value is None else values.get(value, value) for value in node.inputs],
            attributes=attributes | dict(branch.attributes.get(node, {})),
            num_outputs=len(node.outputs),
            name=f"{_name(node)}.{i}",
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type = f"{old.name}.{i}", old.type
            if old.shape is not None:
                width = old.shape[-1]
                narrow = isinstance(width, int) and node is not branch.down
                last = width // branch.parts if narrow and isinstance(width, int) else width
                new.shape = ir.Shape([*old.shape[:-1], last])
            values[old] = new
        made.append(copy)
    return made
