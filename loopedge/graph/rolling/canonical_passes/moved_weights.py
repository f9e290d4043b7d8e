"""Stored weights in another order or shape, moved when they are read: in memory there is none of them twice."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import initializer, make_node
from loopedge.graph.naming import take_name
from loopedge.graph.rolling.canonical_passes.content import Contents, is_constant
from loopedge.graph.rolling.canonical_passes.tensors import (
    reshaped,
    sizes,
    turned,
    turned_beginning,
    turned_digest,
)

__all__ = ["SMALL_BYTES", "VIEWS", "move_weights"]

SMALL_BYTES = 4096
"""Stored values up to this size are moved by computing them: no memory is worth saving there."""
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def move_weights(model: ir.Model, contents: Contents) -> bool:
    """Store weights as the nodes that move them give them, in place.

    A Transpose of what widens a stored weight (Cast, DequantizeLinear) is one of the weight first.

    Requires: constants are initializers of the main graph; equal ones are merged, and so are equal nodes.

    Ensures: no more bytes are stored; a weight that something else reads too stays as it is, and is moved by its node
    as before, unless the moved one is stored as well: that is read then.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "Transpose" and node.op_type not in VIEWS:
            continue
        if node.domain or not node.inputs or node.outputs[0].is_graph_output():
            continue
        if node.op_type == "Transpose":
            node, pulled = _before_widening(node)
            changed |= pulled
        changed |= _move(model.graph, node, contents)
    return changed


def _order(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    """Return the order of axes that a Transpose gives a value of a known rank."""
    if "perm" not in node.attributes:
        return tuple(reversed(range(rank)))
    order = tuple(node.attributes["perm"].as_ints())
    return order if sorted(order) == list(range(rank)) else None


def _move(graph: ir.Graph, node: ir.Node, contents: Contents) -> bool:
    value, given = node.inputs[0], node.outputs[0]
    if value is None or not is_constant(value) or value.const_value is None:
        return False
    tensor = value.const_value
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= SMALL_BYTES:
        return False
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    moved = _moved(node, tensor)
    if moved is None:
        return False
    twin = None if alone else _twin(graph, node, tensor, moved, contents)
    if twin is not None:
        ir.convenience.replace_all_uses_with(given, twin)
        graph.remove(node, safe=True)
        return True
    if not alone:
        return False
    name = value.name or ""
    made = initializer(name, moved)
    ir.convenience.replace_all_uses_with(given, made)
    graph.remove(node, safe=True)
    del graph.initializers[name]
    graph.register_initializer(made)
    return True


def _moved(node: ir.Node, tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    if node.op_type == "Transpose":
        order = _order(node, len(tensor.shape))
        return None if order is None else turned(tensor, order)
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return None
    lengths = shape.numpy()
    fits = int(np.prod(lengths, dtype=np.int64)) == tensor.size
    return reshaped(tensor, lengths) if fits else None


def _twin(
    graph: ir.Graph,
    node: ir.Node,
    tensor: ir.TensorProtocol,
    moved: ir.TensorProtocol,
    contents: Contents,
) -> ir.Value | None:
    """Return the stored value that holds what a node makes of a weight."""
    order = _order(node, len(tensor.shape)) if node.op_type == "Transpose" else None
    begins = contents.beginning(tensor) if order is None else turned_beginning(tensor, order)
    candidates = [
        value
        for value in _alike(graph, moved)
        if value.const_value is not None
        and value.const_value is not tensor
        and contents.beginning(value.const_value) == begins
    ]
    if not candidates:
        return None
    wanted = contents.digest(tensor) if order is None else turned_digest(tensor, order)
    for value in candidates:
        if value.const_value is not None and contents.digest(value.const_value) == wanted:
            return value
    return None


def _alike(graph: ir.Graph, tensor: ir.TensorProtocol) -> Iterator[ir.Value]:
    for value in graph.initializers.values():
        other = value.const_value
        if other is None or not is_constant(value):
            continue
        if other.dtype == tensor.dtype and sizes(other) == sizes(tensor):
            yield value


def _before_widening(node: ir.Node) -> tuple[ir.Node, bool]:
    """Move a Transpose before the Cast or DequantizeLinear of the weight that it turns.

    Returns:
        The Transpose, and whether it was moved.
    """
    value = node.inputs[0]
    wide = None if value is None else value.producer()
    if wide is None or value is None or wide.graph is not node.graph or node.graph is None:
        return node, False
    if wide.domain or wide.op_type not in {"Cast", "DequantizeLinear"} or len(value.uses()) != 1:
        return node, False
    weight = wide.inputs[0]
    if weight is None or not is_constant(weight) or weight.const_value is None:
        return node, False
    order = _order(node, len(weight.const_value.shape))
    if order is None or value.is_graph_output() or len(weight.uses()) != 1:
        return node, False
    turn = make_node("Transpose", [weight], f"{node.name}.stored", {"perm": list(order)})
    sides = _scales(wide, weight.const_value, order)
    if sides is None:
        return node, False
    attributes = [each for each in wide.attributes.values() if each.name != "axis"]
    scales, axis = sides
    if axis is not None:
        attributes.append(ir.AttrInt64("axis", axis))
    new = ir.Node(
        "", wide.op_type, [turn.outputs[0], *scales], attributes, num_outputs=1, name=wide.name
    )
    given, out = node.outputs[0], new.outputs[0]
    turn.outputs[0].type = ir.TensorType(weight.const_value.dtype)
    out.type, out.shape, name = given.type, given.shape, given.name
    node_graph = node.graph
    node_graph.insert_before(node, [turn, new])
    ir.convenience.replace_all_uses_with(given, out)
    node_graph.remove(node, safe=True)
    node_graph.remove(wide, safe=True)
    take_name(out, name)
    return turn, True


def _scales(
    wide: ir.Node, weight: ir.TensorProtocol, order: tuple[int, ...]
) -> tuple[list[ir.Value | None], int | None] | None:
    """Return the scales and zero points of a turned weight, and their axis; None where it cannot be turned."""
    sides = list(wide.inputs[1:])
    if wide.op_type == "Cast":
        return sides, None
    scale = sides[0] if sides else None
    if scale is None or scale.const_value is None:
        return None
    rank, scale_rank = len(weight.shape), len(scale.const_value.shape)
    axis = wide.attributes.get_int("axis", 1)
    if scale_rank == 0 or (scale_rank == 1 and scale.const_value.size == 1):
        return sides, None
    if not -rank <= axis < rank:
        return None
    # Blocks stay: ONNX Runtime computes products with turned ones in eight bits.
    return (sides, order.index(axis % rank)) if scale_rank == 1 else None
