"""Operators of ONNX that look like those of ONNX Runtime from outside: for the inference of types and shapes alone."""

from collections.abc import Sequence

import onnx
import onnx_ir as ir

__all__ = ["stand_ins"]

AS_FIRST = frozenset(
    {
        "BiasAdd",
        "BiasGelu",
        "BiasSplitGelu",
        "FastGelu",
        "Gelu",
        "GroupNorm",
        "GroupQueryAttention",
        "MultiHeadAttention",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""Their first output is of the type and shape of their first input."""


def stand_ins(node: ir.Node) -> Sequence[onnx.NodeProto]:
    """Return the node as it is written, or nodes that give values of the same type and shape."""
    inputs = [value.name or "" if value is not None else "" for value in node.inputs]
    outputs = [value.name or "" for value in node.outputs]
    if node.domain not in {"com.microsoft", ""} or not inputs:
        return [ir.serde.serialize_node(node)]
    if node.op_type in AS_FIRST and (
        node.domain or node.op_type in {"SimplifiedLayerNormalization"}
    ):
        made = [_node("Identity", inputs[:1], outputs[:1])]
        if node.op_type.startswith("Skip") and len(outputs) > 3 and outputs[3]:
            made.append(_node("Identity", inputs[:1], [outputs[3]]))
        return made
    if node.domain and node.op_type in {"FusedMatMul", "TransposeMatMul"}:
        return _product(node, inputs, outputs)
    if node.domain and node.op_type == "FusedGemm":
        made = _node("Gemm", inputs, outputs)
        for name in ("transA", "transB"):
            turned = node.attributes.get_int(name, 0)
            made.attribute.append(onnx.helper.make_attribute(name, turned))
        return [made]
    if node.domain and node.op_type == "DynamicQuantizeMatMul":
        return [
            _node("CastLike", [inputs[1], inputs[0]], [f"{outputs[0]}.weight"]),
            _node("MatMul", [inputs[0], f"{outputs[0]}.weight"], outputs),
        ]
    if node.domain and node.op_type == "MatMulIntegerToFloat":
        return [
            _node("CastLike", [inputs[0], inputs[2]], [f"{outputs[0]}.first"]),
            _node("CastLike", [inputs[1], inputs[2]], [f"{outputs[0]}.weight"]),
            _node("MatMul", [f"{outputs[0]}.first", f"{outputs[0]}.weight"], outputs),
        ]
    return [ir.serde.serialize_node(node)]


def _product(node: ir.Node, inputs: list[str], outputs: list[str]) -> list[onnx.NodeProto]:
    made, factors = [], []
    for place, attribute in enumerate(("transA", "transB")):
        value = node.inputs[place]
        factor = inputs[place]
        turned = node.attributes.get_int(attribute, 0)
        if turned:
            if value is None or value.shape is None or len(value.shape) < 2:
                return [ir.serde.serialize_node(node)]
            rank = len(value.shape)
            order = [*range(rank - 2), rank - 1, rank - 2]
            factor = f"{outputs[0]}.{attribute}"
            made.append(onnx.helper.make_node("Transpose", [inputs[place]], [factor], perm=order))
        factors.append(factor)
    return [*made, _node("MatMul", factors, outputs[:1])]


def _node(op_type: str, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, outputs)
