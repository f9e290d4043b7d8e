"""Multiply float16 weights in float32: integers are made of float32 weights.

A graph that computes in float16 has float16 weights and activations. ONNX Runtime has integer products between float32
alone, and its float16 products on processors are float32 ones between Casts anyway.
"""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import initializer, insert_before, make_node

__all__ = ["widen_half_products"]

HALF = ir.DataType.FLOAT16


def widen_half_products(model: ir.Model) -> bool:
    """Let the linears of a float16 graph compute in float32 between Casts, in place.

    Requires: the weights are initializers of the main graph; linears are MatMul (`loopedge.graph.passes.layout`).

    Ensures: all other nodes compute in float16 as before; a weight stands once, in float32. One that something other
    than linears and lookups reads stays as it is.

    Returns:
        Whether anything changed.
    """
    changed = False
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != HALF or len(tensor.shape) != 2:
            continue
        if value.is_graph_output() or value.is_graph_input():
            continue
        readers = [(node, place) for node, place in value.uses()]
        turned = [node for node, _ in readers if _turns(node)]
        products = [node for node, place in readers if _multiplies(node)]
        products += [user for node in turned for user in node.outputs[0].consumers()]
        lookups = [node for node, place in readers if node.op_type == "Gather" and place == 0]
        if not products or len(readers) != len(
            {*turned, *lookups, *products} & {n for n, _ in readers}
        ):
            continue
        wide = initializer(name, tensor.numpy().astype(np.float32))
        del model.graph.initializers[name]
        ir.convenience.replace_all_uses_with(value, wide)
        model.graph.register_initializer(wide)
        for node in turned:
            node.outputs[0].type = wide.type
        for node in dict.fromkeys(products):
            _widen(node)
        for node in lookups:
            _narrow_behind(node)
        changed = True
    return changed


def _turns(node: ir.Node) -> bool:
    if not _is_transpose(node) or node.outputs[0].is_graph_output():
        return False
    return all(_multiplies(user) for user in node.outputs[0].consumers())


def _is_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and not node.domain


def _multiplies(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and not node.domain


def _widen(node: ir.Node) -> None:
    """Put Casts around a product whose weight is float32; those that turn its factor and what it gives stand within."""
    name = node.name or "MatMul"
    for place, value in enumerate(node.inputs):
        if value is None or _is_wide(value):
            continue
        turn = value.producer()
        if turn is None or not _is_transpose(turn) or len(value.uses()) > 1:
            turn = None
        reader, at = (node, place) if turn is None else (turn, 0)
        read = reader.inputs[at]
        if read is None:
            continue
        wide = _cast(read, f"{name}.wide", ir.DataType.FLOAT)
        insert_before(reader, wide)
        reader.replace_input_with(at, wide.outputs[0])
        if turn is not None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    users = list(node.outputs[0].consumers())
    ends = node.outputs[0].is_graph_output()
    last = users[0] if len(users) == 1 and _is_transpose(users[0]) and not ends else node
    for each in dict.fromkeys((node, last)):
        each.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    _narrow_behind(last)


def _is_wide(value: ir.Value) -> bool:
    maker = value.producer()
    source = maker.inputs[0] if maker is not None and maker.op_type == "Transpose" else value
    return (
        source is not None and source.const_value is not None and value.dtype == ir.DataType.FLOAT
    )


def _narrow_behind(node: ir.Node) -> None:
    rows = node.outputs[0]
    users, ends = list(rows.uses()), rows.is_graph_output()
    cast = _cast(rows, f"{node.name}.narrow", HALF)
    if node.graph is None:
        return
    node.graph.insert_after(node, cast)
    rows.type = ir.TensorType(ir.DataType.FLOAT)
    for user, place in users:
        user.replace_input_with(place, cast.outputs[0])
    if ends:
        for place, output in enumerate(node.graph.outputs):
            if output is rows:
                node.graph.outputs[place] = cast.outputs[0]
                cast.outputs[0].name, rows.name = rows.name, f"{rows.name}.wide"


def _cast(value: ir.Value, name: str, dtype: ir.DataType) -> ir.Node:
    node = make_node("Cast", [value], name, {"to": int(dtype)})
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), value.shape
    return node
