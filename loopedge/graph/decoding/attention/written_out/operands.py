"""What the two products of an attention multiply: queries, keys and values, (batch, heads, sequence, head size).

Exporters turn, fold and scale them on the way: ``Transpose`` in one step or two, batch and heads as one axis for a while,
the scale on either side.
"""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.decoding.attention.written_out.numbers import Size, number_of, rank_of, size_of
from loopedge.graph.editing import make_node

__all__ = ["STRAIGHT", "SWAPPED", "Operand", "read_operand", "same_sizes", "turned"]

STRAIGHT, SWAPPED = (0, 1, 2, 3), (0, 1, 3, 2)
LONGEST_WAY = 16
FOLDED_RANK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """``factor`` times ``value`` with its four axes in the order of ``perm``."""

    value: ir.Value
    perm: tuple[int, ...]
    factor: float = 1.0


def read_operand(value: ir.Value | None, *, scaled: bool = True) -> Operand | None:
    """Return where an operand of a product comes from, of four axes; None where it has not four, or that is not known.

    Args:
        value: (batch, heads, x, y), or (batch x heads, x, y) that was folded out of such a value.
        scaled: Whether numbers that multiply it are taken out.
    """
    rank = rank_of(value)
    if value is None or rank not in {FOLDED_RANK, 4}:
        return None
    perm, factor, current = tuple(range(rank)), 1.0, value
    found = Operand(value=value, perm=perm) if rank == 4 else None
    outer: list[Size] | None = None  # sizes of batch and heads, while they are one axis
    for _ in range(LONGEST_WAY):
        node = current.producer()
        if node is None or node.domain or not node.inputs or node.inputs[0] is None:
            break
        source = node.inputs[0]
        if node.op_type == "Identity":
            current = source
        elif scaled and node.op_type in {"Mul", "Div"}:
            step = _scaling(node)
            if step is None:
                break
            current, factor = step[0], factor * step[1]
        elif node.op_type == "Transpose" and "perm" in node.attributes:
            own = tuple(node.attributes["perm"].as_ints())
            if len(own) != len(perm):
                break
            current, perm = source, tuple(own[place] for place in perm)
        elif node.op_type == "Reshape":
            step_perm = _folded(node, perm, outer)
            if step_perm is None:
                break
            if len(perm) == 4:
                outer = [size_of(current, axis) for axis in (0, 1)]
            current, perm = source, step_perm
        else:
            break
        if len(perm) == 4:
            outer = None
            found = Operand(value=current, perm=perm, factor=factor)
    return found


def _scaling(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return what a node multiplies by a number, and the number."""
    places = (0, 1) if node.op_type == "Mul" else (0,)
    for place in places:
        number, other = number_of(node.inputs[1 - place]), node.inputs[place]
        if number is None or other is None or rank_of(node.inputs[1 - place]) is None:
            continue
        if (rank_of(node.inputs[1 - place]) or 0) > (rank_of(other) or 0):
            continue
        if node.op_type == "Mul":
            return other, number
        return (other, 1 / number) if number else None
    return None


def _folded(
    node: ir.Node, perm: tuple[int, ...], outer: list[Size] | None
) -> tuple[int, ...] | None:
    """Return the order of the axes before a Reshape that makes one axis of batch and heads, or two of one again."""
    source, after = node.inputs[0], node.outputs[0]
    if source is None:
        return None
    before = rank_of(source)
    if before == 4 and len(perm) == FOLDED_RANK:
        kept = [size_of(source, axis) for axis in (2, 3)]
        if perm[0] != 0 or not same_sizes([size_of(after, axis) for axis in (1, 2)], kept):
            return None
        if outer is not None and not same_sizes(outer, [size_of(source, axis) for axis in (0, 1)]):
            return None
        return (0, 1, *(place + 1 for place in perm[1:]))
    if before == FOLDED_RANK and len(perm) == 4 and perm in (STRAIGHT, SWAPPED):
        kept = [size_of(source, axis) for axis in (1, 2)]
        if not same_sizes([size_of(after, axis) for axis in (2, 3)], kept):
            return None
        return (0, *(place - 1 for place in perm[2:]))
    return None


def same_sizes(one: list[Size], other: list[Size]) -> bool:
    """Tell whether sizes are known to be the same."""
    return len(one) == len(other) and all(map(_same, one, other))


def _same(one: Size, other: Size) -> bool:
    return one == other and one not in {-1, 0}


def turned(operand: Operand, perm: tuple[int, ...], name: str) -> tuple[ir.Value, list[ir.Node]]:
    """Return the value of an operand with its axes in the order of ``perm``, and the nodes that turn it."""
    if perm == STRAIGHT:
        return operand.value, []
    node = make_node("Transpose", [operand.value], name, {"perm": perm})
    output = node.outputs[0]
    output.type = operand.value.type
    sizes = [size_of(operand.value, axis) for axis in perm]
    output.shape = ir.Shape([size if isinstance(size, int | str) else None for size in sizes])
    return output, [node]
