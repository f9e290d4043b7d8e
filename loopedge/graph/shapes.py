"""Shapes of values, also of those that no pass has noted one for."""

from collections.abc import Sequence

import onnx_ir as ir

from loopedge.graph.operators import Fact, having

__all__ = ["Dim", "broadcast", "constant_ints", "known_shape"]

Dim = int | str | None

SAME_SHAPE = having(Fact.UNARY) | having(Fact.ROUNDING) | having(Fact.SOFTMAX)
BROADCAST, FACTORS = having(Fact.BROADCAST), having(Fact.FACTORS)


def known_shape(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """Return the shape of a value; of one that no pass has noted it, what its nodes tell.

    Each value is looked at once, and none inside another's call: a graph may be deep, and read one value often.
    """
    if value is None:
        return None
    known: dict[ir.Value, tuple[Dim, ...] | None] = {}
    waiting, begun = [value], set[ir.Value]()
    while waiting:
        current = waiting[-1]
        sources = [] if current.shape is not None else _sources(current)
        missing = [source for source in sources if source not in known]
        if current in known or (missing and current not in begun):
            begun.add(current)
            waiting = waiting[:-1] if current in known else waiting + missing
            continue
        known[current] = _own_shape(current, [known.get(source) for source in sources])
        waiting.pop()
    return known[value]


def _sources(value: ir.Value) -> list[ir.Value]:
    node = value.producer()
    return [] if node is None else [source for source in node.inputs if source is not None]


def _own_shape(value: ir.Value, shapes: list[tuple[Dim, ...] | None]) -> tuple[Dim, ...] | None:
    """Return the shape of a value by those of what its node reads."""
    if value.shape is not None:
        return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    node = value.producer()
    if node is None or not shapes:
        return None
    if node.op_type in SAME_SHAPE:
        return shapes[0]
    if node.op_type in BROADCAST:
        return broadcast(shapes)
    if node.op_type in FACTORS:
        return None if len(shapes) < 2 else _product_shape(shapes[0], shapes[1])
    first = shapes[0]
    if first is None:
        return None
    if node.op_type == "MatMulNBits":
        width = node.attributes.get_int("N", -1)
        return None if width < 0 or not first else (*first[:-1], width)
    if node.op_type == "Transpose" and "perm" in node.attributes:
        turned = node.attributes["perm"].as_ints()
        fits = sorted(turned) == list(range(len(first)))
        return tuple(first[place] for place in turned) if fits else None
    if node.op_type in {"Concat", "Split"}:
        return _resized(first, [node.attributes.get_int("axis", 0)])
    if node.op_type == "Slice":
        axes = constant_ints(node.inputs[3] if len(node.inputs) > 3 else None)
        return None if axes is None else _resized(first, axes)
    return None


def _resized(shape: tuple[Dim, ...], axes: Sequence[int]) -> tuple[Dim, ...] | None:
    """Return a shape whose sizes along some axes are not known; None where it has no such axis."""
    if not all(-len(shape) <= axis < len(shape) for axis in axes):
        return None
    changed = {axis % len(shape) for axis in axes}
    return tuple(None if place in changed else dim for place, dim in enumerate(shape))


def broadcast(shapes: Sequence[tuple[Dim, ...] | None]) -> tuple[Dim, ...] | None:
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known), default=0)
    result: list[Dim] = []
    for place in range(-rank, 0):
        sizes = {shape[place] for shape in known if len(shape) >= -place} - {1}
        result.append(1 if not sizes else sizes.pop() if len(sizes) == 1 else None)
    return tuple(result)


def _product_shape(
    first: tuple[Dim, ...] | None, second: tuple[Dim, ...] | None
) -> tuple[Dim, ...] | None:
    if first is None or second is None or len(first) < 2 or len(second) < 2:
        return None
    batch = broadcast([first[:-2], second[:-2]])
    return None if batch is None else (*batch, first[-2], second[-1])


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """Return the integers of a stored vector or scalar; None where it is none."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or not tensor.dtype.is_integer() or len(tensor.shape) > 1:
        return None
    return [int(item) for item in tensor.numpy().reshape(-1)]
