"""At how many positions a graph is looked at, and how many it takes at most.

What depends on positions is judged by what it holds at several lengths. A window, or another table for long texts, begins at a
number that stands in the graph: the lengths pass it, or it is made smaller. `longest_text` finds how many rows the tables have.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.shapes import known_shape

__all__ = [
    "LONGEST_STORED",
    "TRIED",
    "lengths_to_try",
    "limits_among",
    "longest_text",
    "mask_lengths",
    "numbers_behind",
    "stored_positions",
]

TRIED = (3, 5, 8, 13, 67, 259)
"""Lengths that are tried, as far as the model takes so many positions."""

LONGEST = 2048
"""Positions at which a mask is looked at, at most; it has as many rows and columns."""

LONGEST_STORED = 8192
"""The same of a mask that is stored: where its window ends is written in no number."""

LONGEST_TABLE = 40_000
"""Positions at which a table is looked at, at most."""

PAST = 3
"""Positions behind a number at which something may begin."""


def lengths_to_try(context: int | None, limits: Sequence[int] = ()) -> list[int]:
    """Return lengths at which values are compared.

    Args:
        context: Positions that the model takes at most; None: not known.
        limits: Numbers behind which a value may be another.
    """
    tried = [*TRIED, *(limit + PAST for limit in limits if TRIED[-1] < limit <= LONGEST_TABLE)]
    if context is not None:
        tried = [length for length in tried if length < context] + [min(context, LONGEST)]
    return sorted(set(tried))


def limits_among(lengths: LengthValues, values: Sequence[ir.Value]) -> dict[ir.Value, int]:
    """Return the constants from which values are computed that may be a number of positions, longer than those tried."""
    found = {}
    for node in lengths.nodes_of(values):
        for value in node.inputs:
            tensor = None if value is None else ir.convenience.get_const_tensor(value)
            if value is None or tensor is None or tensor.size != 1 or value in found:
                continue
            number = float(tensor.numpy().reshape(-1)[0])
            if number.is_integer() and TRIED[-1] - PAST < abs(number) <= 2**24:
                found[value] = int(number)
    return found


def mask_lengths(lengths: LengthValues, mask: ir.Value, context: int | None) -> list[int]:
    """Return the lengths at which a mask is looked at: also behind the numbers from which it is computed, as far as `LONGEST`.

    One that is cut out of a stored array is looked at as a whole, as far as `LONGEST_STORED`.
    """
    numbers = (
        abs(number)
        for value, number in limits_among(lengths, [mask]).items()
        if number > 0 or _is_integer(value)
    )
    tried = lengths_to_try(context, [number for number in numbers if number + PAST <= LONGEST])
    whole = min(context or 0, stored_positions(lengths, mask), LONGEST_STORED)
    return tried if whole <= tried[-1] else [*tried, whole]


def stored_positions(lengths: LengthValues, mask: ir.Value) -> int:
    """Return how long the largest axis is of the arrays that a mask is cut out of; 0: it is computed of numbers."""
    nodes = lengths.nodes_of([mask])
    values = [value for node in nodes for value in (*node.inputs, *node.outputs)]
    tensors = [ir.convenience.get_const_tensor(value) for value in values if value is not None]
    return max((max(tensor.shape.numpy(), default=0) for tensor in tensors if tensor), default=0)


def numbers_behind(
    lengths: LengthValues, mask: ir.Value, tried: Sequence[int]
) -> list[dict[ir.Value, int]]:
    """Return the integers from which a mask is computed that no length passes that is tried.

    Returns:
        Those that are close to each other together, and all of them.
    """
    numbers = [
        (abs(number), value, number)
        for value, number in limits_among(lengths, [mask]).items()
        if abs(number) + PAST > tried[-1] and (number > 0 or _is_integer(value))
    ]
    groups: list[dict[ir.Value, int]] = []
    reached = -np.inf
    for size, value, number in sorted(numbers, key=lambda item: item[0]):
        if size > reached + PAST:
            groups.append({})
        groups[-1][value] = number
        reached = size
    return (
        groups if len(groups) < 2 else [*groups, {v: n for one in groups for v, n in one.items()}]
    )


def _is_integer(value: ir.Value) -> bool:
    """Tell a number of positions from what is added to a score to hide a position."""
    return value.dtype is None or value.dtype.is_integer()


def longest_text(lengths: LengthValues) -> int | None:
    """Return how many positions there are rows for, in the shortest table of positions; None: in all that are needed."""
    rotary = (node for node in lengths.model.graph.all_nodes() if node.op_type == "RotaryEmbedding")
    limits = [limit for node in (*lengths.nodes, *rotary) for limit in _rows_left(node, lengths)]
    known = min(limits, default=None)
    return known if known is not None else _longest_computed(lengths)


def _longest_computed(lengths: LengthValues) -> int | None:
    """Return up to which length what depends on lengths can be computed; None: at all that are tried."""
    values = list(dict.fromkeys(read.value for read in lengths.content_reads))

    def computes(size: int) -> bool:
        try:
            lengths.evaluate(values, [(1, size)])
        except Exception:  # whatever ONNX Runtime says
            return False
        return True

    least, most = TRIED[0], TRIED[-1]
    if not values or computes(most) or not computes(least):
        return None
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if computes(middle) else (least, middle)
    return least


def _rows_left(node: ir.Node, lengths: LengthValues) -> Iterator[int]:
    """Yield how many positions a stored table serves, where a node takes rows of it by position."""
    tables = {"Gather": 0, "Slice": 0, "RotaryEmbedding": 1}
    place = tables.get(node.op_type, len(node.inputs))
    data = node.inputs[place] if place < len(node.inputs) else None
    shape = known_shape(data)
    if node.domain or shape is None:
        return
    if data is None or not lengths.is_constant(data):
        return
    bounds = [value for value in node.inputs[1:] if value is not None]
    bounds = bounds[2:] if node.op_type == "RotaryEmbedding" else bounds
    if not bounds or not all(value in lengths or lengths.is_constant(value) for value in bounds):
        return
    most = max((rows for rows in shape if isinstance(rows, int)), default=0)
    sizes = (*TRIED[:3], most + PAST)  # an index may stop to grow
    try:
        found = lengths.evaluate(bounds, [(1, size) for size in sizes])
    except (
        Exception
    ):  # whatever ONNX Runtime says: a table of few rows, or another kind of selection
        return
    if node.op_type != "Slice":
        axis = node.attributes.get_int("axis", 0) % len(shape)
        reached = {
            int(np.max(array)) + 1 - size for size, (array,) in zip(sizes, found, strict=True)
        }
        yield from _limit(shape[axis], reached)
        return
    flat = [[array.reshape(-1).tolist() for array in arrays] for arrays in found]
    axes = flat[0][2] if len(bounds) > 2 else list(range(len(flat[0][1])))
    for place, axis in enumerate(axes):
        reached = {ends[1][place] - size for size, ends in zip(sizes, flat, strict=True)}
        yield from _limit(shape[axis % len(shape)], reached)


def _limit(rows: int | str | None, reached: set[int]) -> Iterator[int]:
    """Yield the length at which rows end, where what is reached is the length and a constant."""
    if isinstance(rows, int) and len(reached) == 1:
        (offset,) = reached
        if offset >= 0 and rows > offset:
            yield rows - offset
