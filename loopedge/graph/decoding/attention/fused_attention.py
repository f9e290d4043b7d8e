"""Attention as ONNX Runtime's optimizers write it becomes the operator of ONNX."""

from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.graph.decoding.attention.written_out.numbers import rank_of
from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.shapes import known_shape

__all__ = ["read_fused", "replace_fused"]

MICROSOFT, FUSED = "com.microsoft", "MultiHeadAttention"
BIAS, PADDING, ADDED = 3, 4, 5
"""Inputs behind queries, keys and values; behind these there are caches."""


def read_fused(model: ir.Model) -> list[ir.Node]:
    """Return the nodes that `replace_fused` replaces: without a cache, without padding, with keys and values of their own."""
    return [node for node in model.graph.all_nodes() if _fits(node)]


def _fits(node: ir.Node) -> bool:
    if node.op_type != FUSED or node.domain != MICROSOFT:
        return False
    inputs = [*node.inputs, *[None] * ADDED]
    plain = all(
        value is None for place, value in enumerate(inputs) if place == PADDING or place > ADDED
    )
    unread = not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    separate = all(value is not None and rank_of(value) == 3 for value in inputs[:BIAS])
    bias = inputs[BIAS] is None or _bias_parts(inputs[BIAS]) is not None
    return plain and unread and separate and bias


def replace_fused(node: ir.Node, model: ir.Model) -> None:
    """Put ``Attention`` in the place of a node of `read_fused`, in place."""
    inputs = [*node.inputs, *[None] * ADDED]
    name = node.name or "attention"
    heads = node.attributes.get_int("num_heads", 1)
    new: list[ir.Node] = []
    read: list[ir.Value | None] = list(inputs[:BIAS])
    for place, part in enumerate(_bias_parts(inputs[BIAS]) or ()):
        value = read[place]
        stored = add_initializer(model.graph, f"{inputs[BIAS].name}.{place}", part)  # type: ignore[union-attr]
        added = make_node("Add", [value, stored], f"{name}.bias.{place}")
        if value is not None:
            added.outputs[0].type, added.outputs[0].shape = value.type, value.shape
        new.append(added)
        read[place] = added.outputs[0]
    attributes: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads}
    attributes["is_causal"] = node.attributes.get_int("unidirectional", 0)
    if scale := node.attributes.get_float("scale", 0.0):
        attributes["scale"] = scale
    mask = inputs[ADDED]
    new.append(make_node("Attention", [*read, *([] if mask is None else [mask])], name, attributes))
    output = node.outputs[0]
    shape, dtype = known_shape(output) or known_shape(inputs[0]), output.type
    replace_node(node, new)
    made = new[-1].outputs[0]
    made.type = made.type or dtype
    if made.shape is None and shape is not None:
        made.shape = ir.Shape(list(shape))


def _bias_parts(bias: ir.Value | None) -> list[np.ndarray[Any, Any]] | None:
    """Return what is added to queries, keys and values, where it is stored as one vector of equal parts."""
    tensor = (
        None if bias is None or bias.is_graph_input() else ir.convenience.get_const_tensor(bias)
    )
    if tensor is None or len(tensor.shape) != 1 or tensor.size % BIAS:
        return None
    return list(np.split(tensor.numpy(), BIAS))
