"""Numbers and sizes that a graph holds, whatever nodes spell them: ``1 / sqrt(head_size)``, ``(-1, S, D)``."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from loopedge.graph.operators import Fact, having
from loopedge.graph.shapes import constant_ints, known_shape

__all__ = ["Size", "number_of", "rank_of", "size_of", "sizes_in"]

Size = int | str | tuple[ir.Value, int]
"""Of an axis: a number, a name, or that of an axis of a value."""

DEEPEST = 24
PASSED = {"Cast", "CastLike", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
"""They keep a number that a whole array holds."""

KEEPS_RANK = having(Fact.UNARY) | having(Fact.SOFTMAX) | {"Dropout", "Slice", "Trilu"}
WIDEST_RANK = having(Fact.BROADCAST) | {"MatMul"}

UNARY = {
    "Neg": lambda x: -x,
    "Reciprocal": lambda x: 1 / x,
    "Sqrt": math.sqrt,
}
BINARY = {
    "Add": lambda x, y: x + y,
    "Div": lambda x, y: x / y,
    "Mul": lambda x, y: x * y,
    "Pow": lambda x, y: x**y,
    "Sub": lambda x, y: x - y,
}


def number_of(value: ir.Value | None, depth: int = DEEPEST) -> float | None:
    """Return the number that a value holds at each of its places; None where it holds several, or the graph alone does not say.

    An array that a caller may overwrite (an input with a default) is not known.
    """
    if value is None or depth < 0 or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return _one(tensor)
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return 0.0 if filled is None else _one(filled.as_tensor())
    if node.op_type in PASSED:
        return number_of(node.inputs[0], depth - 1)
    try:
        if node.op_type in UNARY:
            found = number_of(node.inputs[0], depth - 1)
            return None if found is None else UNARY[node.op_type](found)
        if node.op_type in BINARY:
            one, two = (number_of(read, depth - 1) for read in node.inputs[:2])
            return None if one is None or two is None else BINARY[node.op_type](one, two)
    except (ArithmeticError, ValueError):
        return None
    sizes = sizes_in(value)
    return float(sizes[0]) if sizes and len(sizes) == 1 and isinstance(sizes[0], int) else None


def _one(tensor: ir.TensorProtocol) -> float | None:
    if tensor.dtype in {ir.DataType.STRING, ir.DataType.UNDEFINED} or tensor.size == 0:
        return None
    array = tensor.numpy().reshape(-1)
    if np.issubdtype(array.dtype, np.complexfloating) or (array != array[0]).any():
        return None
    return float(array[0])


def rank_of(value: ir.Value | None, depth: int = DEEPEST) -> int | None:
    """Return how many axes a value has, as far as the graph says so."""
    shape = known_shape(value)
    if shape is not None or value is None or depth < 0:
        return None if shape is None else len(shape)
    stored, node = ir.convenience.get_const_tensor(value), value.producer()
    if stored is not None:
        return len(stored.shape)
    if node is None or node.domain:
        return None
    if node.op_type == "Transpose" and "perm" in node.attributes:
        return len(node.attributes["perm"].as_ints())
    if node.op_type == "Reshape":
        sizes = sizes_in(node.inputs[1])
        return None if sizes is None else len(sizes)
    if node.op_type in {"Expand", "ConstantOfShape"}:
        sizes = sizes_in(node.inputs[-1])
        return None if sizes is None else len(sizes)
    if node.op_type in {"Range", "Shape"}:
        return 1
    if node.op_type == "Einsum":
        return len(node.attributes.get_string("equation", "").partition("->")[2].strip()) or None
    ranks = [rank_of(read, depth - 1) for read in node.inputs if read is not None]
    if node.op_type == "Unsqueeze" and ranks[0] is not None:
        return ranks[0] + len(constant_ints(node.inputs[1]) or [0])
    if node.op_type in KEEPS_RANK:
        return ranks[0]
    if node.op_type in WIDEST_RANK:
        return None if None in ranks else max(rank for rank in ranks if rank is not None)
    return None


def size_of(value: ir.Value, axis: int, depth: int = DEEPEST) -> Size:
    """Return the size of an axis of a value; where nothing is known of it, it stands for itself."""
    shape = known_shape(value)
    dim = None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]
    if dim is not None:
        return dim
    node, rank = value.producer(), rank_of(value)
    place = axis % rank if rank else axis
    if node is not None and not node.domain and depth > 0 and node.inputs:
        source = node.inputs[0]
        if node.op_type == "Transpose" and "perm" in node.attributes and source is not None:
            return size_of(source, node.attributes["perm"].as_ints()[place], depth - 1)
        if node.op_type == "Reshape" and source is not None:
            sizes = sizes_in(node.inputs[1], depth - 1)
            asked = sizes[place] if sizes is not None and place < len(sizes) else -1
            if asked == 0:
                return size_of(source, place, depth - 1)
            if asked != -1:
                return asked
        if node.op_type in {"Cast", "Identity"} and source is not None:
            return size_of(source, axis, depth - 1)
    return value, place


def sizes_in(value: ir.Value | None, depth: int = DEEPEST) -> list[Size] | None:
    """Return the sizes that a vector or a scalar of integers holds, one item of it after the other; None: not known."""
    stored = constant_ints(value)
    if stored is not None:
        return list(stored)
    node = None if value is None else value.producer()
    if node is None or node.domain or depth < 0 or not node.inputs:
        return None
    if node.op_type == "Shape":
        return _shape(node, depth)
    if node.op_type in {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}:
        return sizes_in(node.inputs[0], depth - 1)
    if node.op_type == "Concat":
        parts = [sizes_in(read, depth - 1) for read in node.inputs]
        return None if None in parts else [size for part in parts for size in part or ()]
    source = sizes_in(node.inputs[0], depth - 1)
    if source is None:
        return None
    if node.op_type == "Gather":
        return _picked(source, constant_ints(node.inputs[1]))
    if node.op_type == "Slice":
        bounds = [constant_ints(read) for read in node.inputs[1:3]]
        steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 else [1]
        if all(bound is not None and len(bound) == 1 for bound in (*bounds, steps)):
            return source[bounds[0][0] : bounds[1][0] : steps[0]]  # type: ignore[index]
    return None


def _shape(node: ir.Node, depth: int) -> list[Size] | None:
    source = node.inputs[0]
    rank = rank_of(source)
    if source is None or rank is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)
    return [size_of(source, axis, depth - 1) for axis in range(rank)[start:end]]


def _picked(sizes: Sequence[Size], places: Sequence[int] | None) -> list[Size] | None:
    if places is None or not all(-len(sizes) <= place < len(sizes) for place in places):
        return None
    return [sizes[place] for place in places]
