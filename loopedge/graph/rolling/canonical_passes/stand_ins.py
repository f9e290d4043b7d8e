"""Operators of ONNX that look like those of ONNX Runtime from outside: for the inference of types and shapes alone."""

from collections.abc import Callable, Iterable
from typing import Any

import onnx
import onnx_ir as ir

__all__ = ["add_stand_ins"]

RUNTIME_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc"})
FUSED_BEFORE_OPSET_17 = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
"""ONNX Runtime writes them in ONNX's own domain, also before ONNX had them."""
ANY_SHAPE = "loopedge.any_shape"
"""An input that the inference knows nothing of: what is reshaped to it has a type and no shape."""
CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def add_stand_ins(graph: onnx.GraphProto, node: ir.Node) -> None:
    """Write a node into a graph as it is, or as nodes that give values of the same type and shape.

    Args:
        graph: Of which types and shapes are wanted; it is never run.
        node: Of any operator.
    """
    first = node.inputs[0] if node.inputs else None
    if node.domain in RUNTIME_DOMAINS and first is not None:
        rule = RULES.get(node.op_type) if node.domain == "com.microsoft" else None
        (rule or _type_alone)(_Place(graph, node))
    elif not node.domain and node.op_type in FUSED_BEFORE_OPSET_17 and len(node.outputs) == 1:
        _as_first(_Place(graph, node))
    else:
        graph.node.append(ir.serde.serialize_node(node))


class _Place:
    """A node that is to be stood in for, and the graph that the others go into."""

    def __init__(self, graph: onnx.GraphProto, node: ir.Node) -> None:
        self.graph, self.node = graph, node
        self.inputs = [value.name or "" if value is not None else "" for value in node.inputs]
        self.outputs = [value.name or "" for value in node.outputs]

    def add(self, op_type: str, inputs: Iterable[str], output: str = "", **attributes: Any) -> str:
        """Add a node of one output, the first of the node's where it has no name, and return that name."""
        name = output or self.outputs[0]
        made = onnx.helper.make_node(op_type, list(inputs), [name])
        made.attribute.extend(
            onnx.helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self.graph.node.append(made)
        return name

    def between(self, part: str) -> str:
        """Return a name for a value that only stand-ins read."""
        return f"{self.outputs[0]}.loopedge.{part}"

    def dtype(self, place: int, otherwise: ir.DataType = ir.DataType.FLOAT) -> ir.DataType:
        """Return the type of an input as far as it is known."""
        value = self.node.inputs[place] if place < len(self.node.inputs) else None
        return otherwise if value is None or value.dtype is None else value.dtype

    def stored(self, part: str, dtype: ir.DataType, lengths: list[int]) -> str:
        """Add a weight that is only looked at from outside."""
        name = self.between(part)
        info = onnx.helper.make_tensor_value_info(name, int(dtype), lengths)
        self.graph.input.append(info)
        return name


def _type_alone(place: _Place) -> None:
    """Give the first output the type of the first float, or of the first input, and no shape."""
    if all(info.name != ANY_SHAPE for info in place.graph.input):
        info = onnx.helper.make_tensor_value_info(ANY_SHAPE, onnx.TensorProto.INT64, [None])
        place.graph.input.append(info)
    read = [value for value in place.node.inputs if value is not None]
    floats = [each for each in read if each.dtype is not None and each.dtype.is_floating_point()]
    place.add("Reshape", [(floats or read)[0].name or "", ANY_SHAPE])


def _as_first(place: _Place) -> None:
    place.add("Identity", place.inputs[:1])


def _skip_norm(place: _Place) -> None:
    """The fourth output is the sum that is normalised."""
    _as_first(place)
    if len(place.outputs) > 3 and place.outputs[3]:
        place.add("Identity", place.inputs[:1], place.outputs[3])


def _attention(place: _Place) -> None:
    """The result is as wide as a third of the weight, or as the values are."""
    weight = place.node.inputs[1]
    sizes = place.node.attributes.get_ints("qkv_hidden_sizes", ())
    if weight is None or weight.shape is None or not weight.shape.is_static():
        return _type_alone(place)
    rows, columns = weight.shape.numpy()
    width = int(sizes[2]) if sizes else columns // 3
    dtype = place.dtype(3 if place.node.op_type == "QAttention" else 0)
    state = place.add("Cast", place.inputs[:1], place.between("state"), to=int(dtype))
    place.add("MatMul", [state, place.stored("weight", dtype, [rows, width])])
    return None


def _heads(place: _Place) -> None:
    """Where keys and values are given apart, the result is as the queries are."""
    apart = len(place.inputs) > 2 and place.inputs[1] and place.inputs[2]
    (_as_first if apart else _type_alone)(place)


def _blocks(place: _Place) -> None:
    attributes = place.node.attributes
    if "K" not in attributes or "N" not in attributes:
        return _type_alone(place)
    lengths = [attributes["K"].as_int(), attributes["N"].as_int()]
    place.add("MatMul", [place.inputs[0], place.stored("weight", place.dtype(0), lengths)])
    return None


def _product(place: _Place) -> None:
    """A product of matrices, of which each may be turned."""
    factors = []
    for side, name in enumerate(("transA", "transB")):
        value, factor = place.node.inputs[side], place.inputs[side]
        if place.node.attributes.get_int(name, 0):
            if value is None or value.shape is None or len(value.shape) < 2:
                return _type_alone(place)
            rank = len(value.shape)
            order = [*range(rank - 2), rank - 1, rank - 2]
            factor = place.add("Transpose", [factor], place.between(name), perm=order)
        factors.append(factor)
    place.add("MatMul", factors)
    return None


def _gemm(place: _Place) -> None:
    turned: dict[str, Any] = {
        name: place.node.attributes.get_int(name, 0) for name in ("transA", "transB")
    }
    if place.node.op_type == "FusedGemm":
        place.add("Gemm", place.inputs[:3], **turned)
        return
    product = place.add("Gemm", [place.inputs[0], place.inputs[3]], place.between("p"), **turned)
    place.add("Cast", [product], to=int(place.dtype(8)))  # without a zero point it is float


def _integer_product(place: _Place) -> None:
    """A product that gives floats: the weight, or both factors, are integers."""
    scale = 2 if place.node.op_type == "MatMulIntegerToFloat" else 0
    dtype = int(place.dtype(scale))
    first = place.add("Cast", [place.inputs[0]], place.between("first"), to=dtype)
    second = place.add("Cast", [place.inputs[1]], place.between("second"), to=dtype)
    place.add("MatMul", [first, second])


def _broadcast(place: _Place) -> None:
    place.add("Add", [place.inputs[0], place.inputs[3]])


def _where(place: _Place) -> None:
    place.add("Where", [place.inputs[0], place.inputs[1], place.inputs[4]])


def _concat(place: _Place) -> None:
    axis = place.node.attributes.get_int("axis", 0)
    place.add("Concat", place.inputs[2::3], axis=axis)


def _dequantize(place: _Place) -> None:
    place.add("Cast", place.inputs[:1], to=int(place.dtype(1)))


def _quantize(place: _Place) -> None:
    place.add("Cast", place.inputs[:1], to=int(place.dtype(2, ir.DataType.UINT8)))


def _convolution(place: _Place) -> None:
    kept = {
        name: attribute.value
        for name, attribute in place.node.attributes.items()
        if name in CONVOLUTION
    }
    place.add("Conv", place.inputs[:2], **kept)


def _embedding(place: _Place) -> None:
    place.add("Gather", [place.inputs[2], place.inputs[0]])


RULES: dict[str, Callable[[_Place], None]] = {
    **dict.fromkeys(
        (
            "BiasAdd",
            "BiasGelu",
            "BiasSoftmax",
            "FastGelu",
            "Gelu",
            "GroupNorm",
            "QLinearLeakyRelu",
            "QLinearSigmoid",
            "QLinearSoftmax",
            "QuickGelu",
            "RotaryEmbedding",
            "SimplifiedLayerNormalization",
        ),
        _as_first,
    ),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), _product),
    **dict.fromkeys(("FusedGemm", "QGemm"), _gemm),
    **dict.fromkeys(("Attention", "QAttention"), _attention),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention"), _heads),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _blocks),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _integer_product),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast),
    "DequantizeLinear": _dequantize,
    "EmbedLayerNormalization": _embedding,
    "FusedConv": _convolution,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QuantizeLinear": _quantize,
}
