"""Linears that read the same activations become one: queries, keys and values; gate and up.

Each column of a product is computed by itself, so the result is the same to the bit. What is saved is what each
product costs besides its arithmetic: rounding of the activations, and starting and joining threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.shapes import known_shape

__all__ = ["JoinedTensor", "fuse_products"]

MICROSOFT = "com.microsoft"
SPLIT_SIZES_OPSET = 13
"""From here on Split takes its sizes as an input."""

COLUMNS = "N"
"""The attribute of MatMulNBits that counts columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A product: which inputs hold its weight, along which axis of each its columns lie, and how many inputs it has."""

    columns: Mapping[int, int]
    types: frozenset[ir.DataType]


KINDS = {
    ("", "MatMul"): _Kind(
        columns={1: 1}, types=frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
    ),
    (MICROSOFT, "MatMulNBits"): _Kind(columns={1: 0, 2: 0}, types=frozenset({ir.DataType.UINT8})),
    (MICROSOFT, "DynamicQuantizeMatMul"): _Kind(
        columns={1: 1, 2: 0}, types=frozenset({ir.DataType.INT8, ir.DataType.UINT8})
    ),
}


def fuse_products(model: ir.Model) -> bool:
    """Replace products of the same activations with stored weights by one of all their columns, and a Split, in place.

    Requires: nothing; products with a bias, zero points or weights that something else reads are left alone.

    Ensures: outputs are the same to the bit; each weight is stored once, as part of a joined one, which is put
    together when it is written.

    Returns:
        Whether anything changed.
    """
    opset = model.opset_imports.get("")
    if opset is None or opset < SPLIT_SIZES_OPSET:
        return False
    groups = [group for group in _groups(model).values() if len(group) > 1]
    groups = [group for group in groups if _own_weights(group, groups)]
    joined: dict[tuple[ir.Value, ...], ir.Value] = {}
    for group in groups:
        _fuse(group, joined, model)
    for weights in joined:
        for weight in weights:
            if not weight.uses() and weight.name is not None:
                model.graph.initializers.pop(weight.name, None)
    return bool(groups)


def _groups(model: ir.Model) -> dict[tuple[Any, ...], list[ir.Node]]:
    """Return products by what they read and how they compute, in the order of the graph."""
    found: dict[tuple[Any, ...], list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        kind = KINDS.get((node.domain, node.op_type))
        if kind is None or not _is_linear(node, kind, model):
            continue
        attributes = tuple(
            (name, attribute.value)
            for name, attribute in sorted(node.attributes.items())
            if name != COLUMNS
        )
        rest = [_but_columns(node.inputs[place], axis) for place, axis in kind.columns.items()]
        types = [value.dtype for value in node.inputs if value is not None]
        key = (node.graph, node.op_type, node.inputs[0], attributes, str(rest), str(types))
        found.setdefault(key, []).append(node)
    return found


def _is_linear(node: ir.Node, kind: _Kind, model: ir.Model) -> bool:
    """Tell whether a node has the inputs of its kind, its weights stored, and no other."""
    given = [place for place, value in enumerate(node.inputs) if value is not None]
    if given != [0, *kind.columns]:
        return False
    for place, axis in kind.columns.items():
        value = node.inputs[place]
        assert value is not None
        stored = value.const_value is not None and value.is_initializer()
        if not stored or value in model.graph.inputs or value.is_graph_output():
            return False
        shape = known_shape(value)
        if shape is None or len(shape) <= axis:
            return False
    weight = node.inputs[1]
    assert weight is not None
    two = node.op_type == "MatMulNBits" or len(weight.shape or ()) == 2
    return two and weight.dtype in kind.types and known_shape(node.outputs[0]) is not None


def _but_columns(value: ir.Value | None, axis: int) -> list[int | str]:
    shape = list(known_shape(value) or ())
    return [str(size) for place, size in enumerate(shape) if place != axis]


def _own_weights(group: Sequence[ir.Node], groups: Sequence[Sequence[ir.Node]]) -> bool:
    """Tell whether the weights of a group are read together wherever they are read, in the same order."""
    weights = _weights(group)
    alike = {node for other in groups if _weights(other) == weights for node in other}
    distinct = len({value for row in weights for value in row}) == sum(map(len, weights))
    return distinct and all(
        user in alike for row in weights for value in row for user in value.consumers()
    )


def _weights(group: Sequence[ir.Node]) -> list[tuple[ir.Value, ...]]:
    """Return by input that holds weights those of each node."""
    places = KINDS[group[0].domain, group[0].op_type].columns
    rows = []
    for place in places:
        values = [node.inputs[place] for node in group]
        rows.append(tuple(value for value in values if value is not None))
    return rows


def _fuse(
    group: Sequence[ir.Node], joined: dict[tuple[ir.Value, ...], ir.Value], model: ir.Model
) -> None:
    """Put one product and a Split in the place of several products."""
    first = group[0]
    kind = KINDS[first.domain, first.op_type]
    inputs: list[ir.Value | None] = [first.inputs[0]]
    for values, axis in zip(_weights(group), kind.columns.values(), strict=True):
        if values not in joined:
            tensor = JoinedTensor([_stored(value) for value in values], axis)
            name = _joined_name([str(value.name) for value in values])
            joined[values] = add_initializer(model.graph, name, tensor)
        inputs.append(joined[values])
    outputs = [node.outputs[0] for node in group]
    widths = [_last(value) for value in outputs]
    attributes = {name: attribute.value for name, attribute in first.attributes.items()}
    if COLUMNS in attributes:
        attributes[COLUMNS] = sum(widths)
    name = _joined_name([str(node.name) for node in group])
    product = make_node(first.op_type, inputs, name, attributes, domain=first.domain)
    product.outputs[0].type = outputs[0].type
    shape = known_shape(outputs[0])
    assert shape is not None
    product.outputs[0].shape = ir.Shape([*shape[:-1], sum(widths)])
    sizes = add_initializer(
        model.graph, f"chunk/widths.{'+'.join(map(str, widths))}", np.array(widths, np.int64)
    )
    split = ir.node(
        "Split",
        [product.outputs[0], sizes],
        attributes={"axis": -1},
        num_outputs=len(group),
        name=f"{name}.split",
    )
    insert_before(first, product)
    insert_before(first, split)
    for old, new, node in zip(outputs, split.outputs, group, strict=True):
        called, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        new.name = called


def _last(value: ir.Value) -> int:
    shape = known_shape(value)
    assert shape is not None
    assert isinstance(shape[-1], int)
    return shape[-1]


def _stored(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def _joined_name(names: Sequence[str]) -> str:
    """Return ``layers.0.q+k+v.weight`` of ``layers.0.q.weight``, ``layers.0.k.weight`` and so on."""
    rows = [name.split(".") for name in names]
    if len({len(row) for row in rows}) == 1:
        parts = ["+".join(dict.fromkeys(column)) for column in zip(*rows, strict=True)]
        if sum("+" in part for part in parts) == 1:
            return ".".join(parts)
    return "+".join(names)


class JoinedTensor(ir.LazyTensor):
    """Tensors one behind the other along an axis, put together when they are read; none is kept."""

    def __init__(self, parts: Sequence[ir.TensorProtocol], axis: int) -> None:
        self.parts, self.axis = tuple(parts), axis
        sizes = [[int(size) for size in part.shape] for part in parts]  # type: ignore[arg-type]
        shape = list(sizes[0])
        shape[axis] = sum(each[axis] for each in sizes)
        super().__init__(self._join, parts[0].dtype, ir.Shape(shape))

    def _join(self) -> ir.TensorProtocol:
        array = np.concatenate([part.numpy() for part in self.parts], axis=self.axis)
        return ir.Tensor(array, dtype=self.dtype, name=self.name)
