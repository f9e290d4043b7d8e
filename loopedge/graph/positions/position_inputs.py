"""Which operators treat every position alone: what a position of their output needs of their inputs.

A position is an index along one axis, mostly that of the sequence. An operator is position-wise along
an axis of its output where each index there depends on one index of some inputs, and on all of the
others: norms over the last axis, products with weights, element-wise operators, attention along its
queries. What is not listed here is taken to mix the positions.
"""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from loopedge.graph.operators import Fact, having
from loopedge.graph.shapes import broadcast, constant_ints, known_shape
from loopedge.graph.weights import stored_weight

__all__ = ["PositionAxes", "position_inputs"]

PositionAxes = list[int | None]
"""By input: the axis that holds the positions, None where all of the input is needed."""

UNKNOWN = -1
MICROSOFT = "com.microsoft"


def position_inputs(node: ir.Node, axis: int) -> PositionAxes | None:
    """Tell what positions of a node's outputs need of its inputs.

    Args:
        node: With known shapes, as far as `known_shape` finds them.
        axis: Of its outputs, counted from the front: where the positions lie.

    Returns:
        By input, the axis of the positions; None for a whole input. None instead of a list where the
        node mixes positions, or where its shapes do not tell.
    """
    rule = _RULES.get(node.op_type) if node.domain in {"", MICROSOFT} else None
    return None if rule is None else rule(node, axis)


def _position_axis(
    value: ir.Value | None, rank: int, axis: int, size: int | str | None
) -> int | None:
    """Return the axis where a broadcast input holds the positions of an output of ``rank``.

    None: it has one for all positions; `UNKNOWN`: its shape does not tell.
    """
    if value is None:
        return None
    shape = known_shape(value)
    if shape is None:
        return UNKNOWN
    place = axis - (rank - len(shape))
    if place < 0 or shape[place] == 1:
        return None
    return place if shape[place] is not None and shape[place] == size else UNKNOWN


def _spread(node: ir.Node, axis: int, inputs: Sequence[ir.Value | None]) -> PositionAxes | None:
    """Align inputs with the output from the last axis on, as NumPy does."""
    shape = known_shape(node.outputs[0])
    if shape is None:
        return None
    found = [_position_axis(value, len(shape), axis, shape[axis]) for value in inputs]
    return None if UNKNOWN in found else found


def _unary(node: ir.Node, axis: int) -> PositionAxes | None:
    return [axis, *[None] * (len(node.inputs) - 1)]


def _elementwise(node: ir.Node, axis: int) -> PositionAxes | None:
    return _spread(node, axis, node.inputs)


def _along_axis(default: int) -> Callable[[ir.Node, int], PositionAxes | None]:
    """Softmax and its like: positions apart unless they lie along the operator's axis."""

    def rule(node: ir.Node, axis: int) -> PositionAxes | None:
        rank = _rank(node.inputs[0])
        if rank is None or axis == node.attributes.get_int("axis", default) % rank:
            return None
        return _unary(node, axis)

    return rule


def _norm(node: ir.Node, axis: int) -> PositionAxes | None:
    rank = _rank(node.inputs[0])
    if rank is None or axis >= node.attributes.get_int("axis", -1) % rank or len(node.outputs) > 1:
        return None
    # A scale as large as the activations would hold positions too.
    scales = [_rank(value) for value in node.inputs[1:] if value is not None]
    if any(size is None or size > rank - axis - 1 for size in scales):
        return None
    return _unary(node, axis)


def _rounding(node: ir.Node, axis: int) -> PositionAxes | None:
    """QuantizeLinear and DequantizeLinear with one scale, or with scales along another axis."""
    shape, rank = known_shape(node.inputs[1]), _rank(node.inputs[0])
    if shape is None or rank is None or len(shape) > 1:
        return None
    along = node.attributes.get_int("axis", 1) % rank
    if shape not in {(), (1,)} and along == axis:
        return None
    return _unary(node, axis)


def _product(node: ir.Node, axis: int) -> PositionAxes | None:
    """MatMul and the integer ones: positions of the first factor, columns of the second, or a batch axis."""
    first, second, *rest = node.inputs
    one, two = known_shape(first), known_shape(second)
    if first is None or second is None or one is None or two is None:
        return None
    rank = max(len(one), len(two))
    others: PositionAxes = [None] * len(rest)
    if len(one) < 2 or len(two) < 2 or not all(map(_same_for_positions, rest)):
        return None
    if axis == rank - 2:
        return None if _is_stored(first) else [len(one) - 2, None, *others]
    if axis == rank - 1:
        # Columns of a stored weight stay: another copy of it would cost more than they save.
        plain = not _is_stored(second) and node.op_type in {"MatMul", "MatMulInteger"}
        return [None, len(two) - 1, *others] if plain else None
    shape = broadcast([one[:-2], two[:-2]])
    size = None if shape is None else shape[axis]
    places = [_position_axis(value, rank, axis, size) for value in (first, second)]
    return None if UNKNOWN in places else [*places, *others]


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None or stored_weight(value) is not None


def _same_for_positions(value: ir.Value | None) -> bool:
    """Tell a scale, zero point or bias of columns from one that differs by position."""
    shape = known_shape(value)
    return value is None or (shape is not None and len(shape) <= 1)


def _blocks(node: ir.Node, axis: int) -> PositionAxes | None:
    rank = _rank(node.inputs[0])
    return None if rank is None or axis == rank - 1 else _unary(node, axis)


def _gemm(node: ir.Node, axis: int) -> PositionAxes | None:
    if axis != 0 or node.attributes.get_int("transA", 0) != 0:
        return None
    bias = _spread(node, axis, node.inputs[2:])
    return None if bias is None else [0, None, *bias]


def _transpose(node: ir.Node, axis: int) -> PositionAxes | None:
    perm = node.attributes.get("perm")
    return None if perm is None else [perm.as_ints()[axis]]


def _reshape(node: ir.Node, axis: int) -> PositionAxes | None:
    """Positions stay apart where all axes up to theirs stay as they are."""
    before, after = known_shape(node.inputs[0]), known_shape(node.outputs[0])
    sizes = constant_ints(node.inputs[1])
    if before is None or after is None or sizes is None:
        return None
    if node.attributes.get_int("allowzero", 0) != 0:
        return None
    same = before[: axis + 1] == after[: axis + 1] and None not in before[: axis + 1]
    return [axis, None] if same else None


def _squeeze(node: ir.Node, axis: int) -> PositionAxes | None:
    rank, axes = _rank(node.inputs[0]), constant_ints(_input(node, 1))
    if rank is None or axes is None:
        return None
    kept = [place for place in range(rank) if place not in {a % rank for a in axes}]
    return [kept[axis], None]


def _unsqueeze(node: ir.Node, axis: int) -> PositionAxes | None:
    rank, axes = _rank(node.inputs[0]), constant_ints(_input(node, 1))
    if rank is None or axes is None:
        return None
    new = {a % (rank + len(axes)) for a in axes}
    return None if axis in new else [axis - sum(place < axis for place in new), None]


def _concat(node: ir.Node, axis: int) -> PositionAxes | None:
    rank = _rank(node.inputs[0])
    if rank is None or node.attributes.get_int("axis", 0) % rank == axis:
        return None
    return [axis] * len(node.inputs)


def _split(node: ir.Node, axis: int) -> PositionAxes | None:
    rank = _rank(node.inputs[0])
    return (
        None
        if rank is None or node.attributes.get_int("axis", 0) % rank == axis
        else _unary(node, axis)
    )


def _slice(node: ir.Node, axis: int) -> PositionAxes | None:
    rank, axes = _rank(node.inputs[0]), constant_ints(_input(node, 3))
    if rank is None or axes is None or axis in {a % rank for a in axes}:
        return None
    return _unary(node, axis)


def _gather(node: ir.Node, axis: int) -> PositionAxes | None:
    rank, depth = _rank(node.inputs[0]), _rank(node.inputs[1])
    if rank is None or depth is None:
        return None
    along = node.attributes.get_int("axis", 0) % rank
    if along <= axis < along + depth:
        return [None, axis - along]
    return [axis if axis < along else axis - depth + 1, None]


def _reduce(node: ir.Node, axis: int) -> PositionAxes | None:
    rank, axes = _rank(node.inputs[0]), constant_ints(_input(node, 1))
    if rank is None or not axes:
        return None
    reduced = {a % rank for a in axes}
    kept = [place for place in range(rank) if place not in reduced]
    place = axis if node.attributes.get_int("keepdims", 1) else kept[axis]
    return None if place in reduced else [place, None]


def _attention(node: ir.Node, axis: int) -> PositionAxes | None:
    """Queries and their positions of the mask; keys and values are read whole.

    Causal attention counts queries from the first key on, whatever their number: it needs as many
    queries as keys here, for `loopedge.graph.positions.selection` to write the mask of those that are left.
    """
    queries, keys = known_shape(node.inputs[0]), known_shape(node.inputs[1])
    mask = _input(node, 3)
    if queries is None or keys is None or axis != len(queries) - 2:
        return None
    if len(node.outputs) > 1 or any(value is not None for value in node.inputs[4:]):
        return None
    causal = bool(node.attributes.get_int("is_causal", 0))
    if causal and (mask is not None or keys[-2] is None or keys[-2] != queries[axis]):
        return None
    rest: PositionAxes = [None] * (len(node.inputs) - 1)
    if mask is not None:
        shape = known_shape(mask)
        if shape is None or len(shape) < 2 or shape[-2] is None or shape[-2] != queries[axis]:
            return None
        rest[2] = len(shape) - 2
    return [axis, *rest]


def _rank(value: ir.Value | None) -> int | None:
    shape = known_shape(value)
    return None if shape is None else len(shape)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


_RULES: dict[str, Callable[[ir.Node, int], PositionAxes | None]] = {
    **dict.fromkeys(having(Fact.UNARY), _unary),
    **dict.fromkeys(having(Fact.BROADCAST), _elementwise),
    **dict.fromkeys(having(Fact.REDUCTION), _reduce),
    **dict.fromkeys(having(Fact.SOFTMAX), _along_axis(-1)),
    **dict.fromkeys(having(Fact.NORM), _norm),
    **dict.fromkeys(having(Fact.ROUNDING), _rounding),
    **dict.fromkeys(having(Fact.FACTORS) - having(Fact.RANGED), _product),
    "MatMulNBits": _blocks,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Attention": _attention,
}
