"""A rotation of queries and keys that is written out becomes one RotaryEmbedding.

``x * cos + concat(-x2, x1) * sin`` is seven nodes, and four more swap heads and positions around it. The operator takes
(batch, sequence, heads x head size) as it is, with the first half of the tables.

Source: ONNX operator RotaryEmbedding, opset 23.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.shapes import constant_ints, known_shape

__all__ = ["ROTARY_OPSET", "fuse_rotary"]

Array = npt.NDArray[Any]

ROTARY_OPSET = 23
SWAP_HEADS = [0, 2, 1, 3]


def fuse_rotary(model: ir.Model, tables: Mapping[ir.Value, Array]) -> bool:
    """Replace rotations by halves that are written out, in place.

    Requires: opset 23 or later; nothing is changed in others.

    Ensures: results differ by rounding at most.

    Args:
        model: A graph that decodes.
        tables: Values (batch, 1, sequence, size) of its main graph that depend on positions, and what they hold at the first
            positions, (..., positions, size): cosines and sines are found among them.

    Returns:
        Whether anything changed.
    """
    if (model.opset_imports.get("") or 0) < ROTARY_OPSET:
        return False
    halves: dict[ir.Value, ir.Value] = {}
    changed = False
    for node in list(model.graph.all_nodes()):
        found = _rotation(node, tables) if node.op_type == "Add" and not node.domain else None
        if found is not None:
            x, cos, sin = found
            _replace(node, x, [_half(table, halves, model) for table in (cos, sin)])
            changed = True
    return changed


def _rotation(
    node: ir.Node, tables: Mapping[ir.Value, Array]
) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return x and its tables, where an Add is ``x * cos + turned(x) * sin``."""
    products = [_product(value, tables) for value in node.inputs]
    for first, second in (products, products[::-1]):
        if first is None or second is None:
            continue
        (x, cos), (turned, sin) = first, second
        shape = known_shape(x)
        if shape is None or len(shape) != 4 or x.dtype != ir.DataType.FLOAT:
            continue
        heads, size = shape[1], shape[3]
        if not isinstance(heads, int) or not isinstance(size, int) or size % 2:
            continue
        if _is_turned(turned, x, size):
            return x, cos, sin
    return None


def _product(
    value: ir.Value | None, tables: Mapping[ir.Value, Array]
) -> tuple[ir.Value, ir.Value] | None:
    """Return what a Mul multiplies, and by which table of two equal halves."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Mul" or node.domain or len(node.inputs) != 2:
        return None
    for x, table in (tuple(node.inputs), tuple(reversed(node.inputs))):
        if x is None or table is None or table not in tables or x in tables:
            continue
        held, shape = tables[table], known_shape(table)
        size = held.shape[-1]
        fits = shape is not None and len(shape) == 4 and shape[1] == 1 and size % 2 == 0
        if fits and np.array_equal(held[..., : size // 2], held[..., size // 2 :]):
            return x, table
    return None


def _is_turned(value: ir.Value, x: ir.Value, size: int) -> bool:
    """Tell whether a value is ``concat(-x2, x1)`` of the halves of ``x``."""
    joined = value.producer()
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return False
    axis = joined.attributes.get("axis")
    if axis is None or axis.as_int() not in (-1, 3):
        return False
    negated, first = joined.inputs
    turned = None if negated is None else negated.producer()
    if turned is None or turned.op_type != "Neg":
        return False
    return _is_half(turned.inputs[0], x, size, 1) and _is_half(first, x, size, 0)


def _is_half(value: ir.Value | None, x: ir.Value, size: int, number: int) -> bool:
    """Tell whether a value is the first or second half of ``x`` along its last axis."""
    node = None if value is None else value.producer()
    if node is None or node.domain or not node.inputs or node.inputs[0] is not x:
        return False
    if node.op_type == "Split":
        axis = node.attributes.get("axis")
        sizes = [known_shape(output) for output in node.outputs]
        even = all(shape is not None and shape[-1] == size // 2 for shape in sizes)
        last = axis is not None and axis.as_int() in (-1, 3)
        return last and even and node.outputs.index(value) == number
    if node.op_type == "Slice" and len(node.inputs) >= 4:
        ends = [constant_ints(given) for given in node.inputs[1:]]
        if any(end is None or len(end) != 1 for end in ends):
            return False
        start, end, axis_of, *step = (given[0] for given in ends if given is not None)
        start = start + size if start < 0 else start
        end = end + size if end < 0 else min(end, size)
        wanted = (number * size // 2, size if number else size // 2)
        return (start, end) == wanted and axis_of in (-1, 3) and step in ([], [1])
    return False


def _half(table: ir.Value, known: dict[ir.Value, ir.Value], model: ir.Model) -> ir.Value:
    """Return the first half of a table, (batch, sequence, size / 2)."""
    if table in known:
        return known[table]
    maker, shape = table.producer(), known_shape(table)
    assert maker is not None
    assert maker.graph is not None
    assert shape is not None
    assert isinstance(shape[3], int)
    size = shape[3] // 2

    def constant(name: str, numbers: Sequence[int]) -> ir.Value:
        return add_initializer(model.graph, f"chunk/{name}", np.array(numbers, np.int64))

    bounds = [constant("first", [0]), constant(f"half.{size}", [size]), constant("last_axis", [-1])]
    half = make_node("Slice", [table, *bounds], f"{table.name}.half")
    flat = make_node("Squeeze", [half.outputs[0], constant("axis", [1])], f"{table.name}.rotary")
    half.outputs[0].type = flat.outputs[0].type = table.type
    half.outputs[0].shape = ir.Shape([*shape[:3], size])
    flat.outputs[0].shape = ir.Shape([shape[0], shape[2], size])
    maker.graph.insert_after(maker, [half, flat])
    known[table] = flat.outputs[0]
    return known[table]


def _replace(node: ir.Node, x: ir.Value, halves: list[ir.Value]) -> None:
    """Put a RotaryEmbedding in the place of an Add; where heads were split before and joined behind, of those too."""
    shape = known_shape(x)
    assert shape is not None
    heads, size = shape[1], shape[3]
    assert isinstance(heads, int)
    assert isinstance(size, int)
    source, result = _before_split(x, heads * size), _joined(node.outputs[0], heads * size)
    name = f"{node.name}.rotary"
    flat = source is not None and result is not None
    read, old = (source, result) if flat else (x, node.outputs[0])
    assert read is not None
    assert old is not None
    attributes = {"num_heads": heads} if flat else {}
    rotary = make_node("RotaryEmbedding", [read, *halves], name, attributes)
    new = rotary.outputs[0]
    new.type, new.shape = old.type, old.shape
    insert_before(node, rotary)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _before_split(x: ir.Value, width: int) -> ir.Value | None:
    """Return (batch, sequence, heads x head size) of what ``Transpose(Reshape(...))`` made ``x`` of."""
    reshape = _swapped_from(x)
    if reshape is None or reshape.op_type != "Reshape":
        return None
    source = reshape.inputs[0]
    shape = known_shape(source)
    return source if shape is not None and len(shape) == 3 and shape[2] == width else None


def _swapped_from(value: ir.Value) -> ir.Node | None:
    swap = value.producer()
    if swap is None or not _swaps(swap):
        return None
    source = swap.inputs[0]
    return None if source is None else source.producer()


def _joined(value: ir.Value, width: int) -> ir.Value | None:
    """Return what ``Reshape(Transpose(...))`` makes of a value that nothing else reads."""
    users = list(value.consumers())
    if len(users) != 1 or not _swaps(users[0]):
        return None
    after = list(users[0].outputs[0].consumers())
    if len(after) != 1 or after[0].op_type != "Reshape":
        return None
    result = after[0].outputs[0]
    shape = known_shape(result)
    return result if shape is not None and len(shape) == 3 and shape[2] == width else None


def _swaps(node: ir.Node) -> bool:
    perm = node.attributes.get("perm")
    return node.op_type == "Transpose" and perm is not None and list(perm.as_ints()) == SWAP_HEADS
