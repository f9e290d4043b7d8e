"""What stands between the product of queries and keys and the softmax: a scale, a soft cap, masks."""

from dataclasses import dataclass, field

import onnx_ir as ir

from loopedge.graph.decoding.attention.written_out.numbers import number_of, rank_of, size_of
from loopedge.graph.decoding.attention.written_out.operands import (
    SWAPPED,
    Operand,
    read_operand,
    same_sizes,
)

__all__ = ["Mask", "Scores", "einsum_terms", "read_scores"]

HIDDEN = -1e4
"""What a mask fills in or adds to hide a position is this or less."""
MICROSOFT = "com.microsoft"
LONGEST_WAY = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A mask: bool, True (with ``hides`` False) where a position is read; or added to the scores where it is float."""

    value: ir.Value
    boolean: bool
    hides: bool = False


@dataclass(slots=True, kw_only=True)
class Scores:
    """Scores of an attention: ``softcap * tanh(scale * q k^T / softcap)``, and masks behind that."""

    query: Operand
    key: Operand
    scale: float
    softcap: float | None = None
    masks: list[Mask] = field(default_factory=list)


@dataclass(slots=True)
class _Walk:
    """What was met on the way up from the softmax."""

    factor: float = 1.0
    softcap: float | None = None
    masks: list[Mask] = field(default_factory=list)


def read_scores(value: ir.Value | None) -> Scores | None:
    """Return how the input of a softmax is made of queries and keys; None where it is made in another way."""
    walk, current = _Walk(), value
    for _ in range(LONGEST_WAY):
        node = None if current is None else current.producer()
        if node is None:
            return None
        product = _product(node)
        if product is not None:
            query, key, factor = product
            scale = walk.factor * factor * query.factor * key.factor
            if scale <= 0:
                return None
            return Scores(query=query, key=key, scale=scale, softcap=walk.softcap, masks=walk.masks)
        current = None if node.domain else _step(node, walk)
    return None


def _step(node: ir.Node, walk: _Walk) -> ir.Value | None:
    """Take one step up, and note what it does; None where it is not known."""
    source = node.inputs[0] if node.inputs else None
    kind = node.op_type
    if source is None:
        return None
    if kind == "Cast":
        return source if _is_float(node) else None
    if kind == "Identity" or (kind == "Reshape" and _keeps_scores(node)):
        return source
    if kind in {"Mul", "Div"}:
        return _scaled(node, walk)
    if kind == "Tanh":
        if walk.softcap is not None or walk.factor <= 0:
            return None
        walk.softcap = walk.factor  # c * tanh(x) = c * tanh((c * x) / c)
        return source
    if kind in {"Add", "Where"} and walk.softcap is None:
        return _masked(node, walk)
    return None


def _is_float(node: ir.Node) -> bool:
    return ir.DataType(node.attributes.get_int("to", 0)).is_floating_point()


def _keeps_scores(node: ir.Node) -> bool:
    """Tell a Reshape between (batch x heads, ...) and (batch, heads, ...) that leaves rows and columns as they are."""
    source, after = node.inputs[0], node.outputs[0]
    if source is None or {rank_of(source), rank_of(after)} != {3, 4}:
        return False
    return same_sizes(
        [size_of(source, axis) for axis in (-2, -1)], [size_of(after, axis) for axis in (-2, -1)]
    )


def _scaled(node: ir.Node, walk: _Walk) -> ir.Value | None:
    for place in (0, 1) if node.op_type == "Mul" else (0,):
        number = number_of(node.inputs[1 - place])
        if number is None or number_of(node.inputs[place]) is not None:
            continue
        walk.factor *= number if node.op_type == "Mul" else 1 / number if number else 0
        return node.inputs[place]
    return None


def _masked(node: ir.Node, walk: _Walk) -> ir.Value | None:
    """Note a mask; return the scores that it masks."""
    if node.op_type == "Where":
        condition, chosen, other = node.inputs
        for scores, filled, hides in ((chosen, other, False), (other, chosen, True)):
            number = number_of(filled)
            if (
                condition is not None
                and number is not None
                and number <= HIDDEN
                and walk.factor > 0
            ):
                walk.masks.append(Mask(value=condition, boolean=True, hides=hides))
                return scores
        return None
    if walk.factor != 1:  # what is added would be scaled too
        return None
    holding = [value for value in node.inputs if value is not None and _leads_to_product(value)]
    if len(holding) != 1:
        return None
    (mask,) = [value for value in node.inputs if value is not holding[0]] or [None]
    if mask is None:
        return None
    walk.masks.append(Mask(value=mask, boolean=False))
    return holding[0]


def _leads_to_product(value: ir.Value) -> bool:
    """Tell whether a product of queries and keys is among what makes a value, by what stands between it and a softmax."""
    waiting, seen = [value], {value}
    for _ in range(LONGEST_WAY * 4):
        if not waiting:
            return False
        node = waiting.pop().producer()
        if node is None:
            continue
        if _product(node) is not None:
            return True
        if node.domain or node.op_type not in {
            *("Add", "Cast", "Div", "Identity", "Mul", "Reshape", "Tanh", "Where"),
        }:
            continue
        reads = [read for read in node.inputs if read is not None and read not in seen]
        seen.update(reads)
        waiting += reads
    return False


def _product(node: ir.Node) -> tuple[Operand, Operand, float] | None:
    """Return queries and keys that a node multiplies, and the number that it multiplies them by.

    The keys come as (batch, heads, sequence, head size) too. None: it is no product of two values of four axes.
    """
    if node.op_type == "Einsum" and not node.domain:
        return _einsum(node)
    fused = node.op_type == "FusedMatMul" and node.domain == MICROSOFT
    if not fused and (node.op_type != "MatMul" or node.domain):
        return None
    query, key = (read_operand(value) for value in node.inputs[:2])
    if query is None or key is None:
        return None
    swap_keys, factor = True, 1.0
    if fused:
        if any(
            node.attributes.get_int(name, 0) for name in ("transA", "transBatchA", "transBatchB")
        ):
            return None
        swap_keys = not node.attributes.get_int("transB", 0)
        factor = float(node.attributes.get_float("alpha", 1.0))
    if swap_keys:
        key = Operand(value=key.value, perm=_swapped(key.perm), factor=key.factor)
    return query, key, factor


def _swapped(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm[place] for place in SWAPPED)


def _einsum(node: ir.Node) -> tuple[Operand, Operand, float] | None:
    """Read an equation as ``bhqd,bhkd->bhqk``, with the axes of both operands in any order."""
    terms = einsum_terms(node)
    if terms is None or len(node.inputs) != 2:
        return None
    (one, two), result = terms
    batch, heads, rows, columns = tuple(result)
    if rows in two:
        one, two = two, one
        values = [node.inputs[1], node.inputs[0]]
    else:
        values = list(node.inputs[:2])
    shared = set(one) & set(two) - set(result)
    if len(shared) != 1 or set(one) != {batch, heads, rows, *shared}:
        return None
    (size,) = shared
    if set(two) != {batch, heads, columns, size}:
        return None
    found = []
    for value, term, order in zip(
        values, (one, two), ((batch, heads, rows, size), (batch, heads, columns, size)), strict=True
    ):
        operand = read_operand(value)
        if operand is None:
            return None
        perm = tuple(operand.perm[term.index(letter)] for letter in order)
        found.append(Operand(value=operand.value, perm=perm, factor=operand.factor))
    return found[0], found[1], 1.0


def einsum_terms(node: ir.Node) -> tuple[list[str], str] | None:
    """Return the terms of an equation of values of four axes, each letter once in a term; None: it is another."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    alike = all(len(term) == len(set(term)) == 4 and term.isalpha() for term in (*terms, result))
    return (terms, result) if arrow and alike and len(terms) == 2 else None
