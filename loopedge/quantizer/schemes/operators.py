"""The operators that int8 products are written in: those of ONNX Runtime, or of ONNX alone."""

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import make_node
from loopedge.graph.weights import Linear
from loopedge.options import option
from loopedge.quantizer.activations.rounding import RoundedActivation

__all__ = ["MICROSOFT", "OPERATORS", "PAIRS", "check_operators", "integer_product"]

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's integer products."""

PAIRS = "qdq"
OPERATORS = ("microsoft", "standard", PAIRS)
"""``microsoft``: one operator of ONNX Runtime for a product; ``standard``: those of ONNX that are fused to it; ``qdq``:
MatMul between QuantizeLinear and DequantizeLinear, for accelerators."""


def integer_product(
    item: Linear, rounded: RoundedActivation, weight_scale: ir.Value
) -> list[ir.Node]:
    """Return the nodes that take a linear's place: MatMulInteger, Cast, and Mul by both scales.

    ONNX Runtime fuses them to MatMulIntegerToFloat, in the body of a Loop too.

    Args:
        item: A linear whose weight is stored as s8 [in, out].
        rounded: What it reads.
        weight_scale: float32 (out,).
    """
    name = item.node.name or "MatMul"
    product = make_node("MatMulInteger", [rounded.values, item.weight, rounded.zero_point], name)
    product.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    floats = make_node("Cast", product.outputs, f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    scale = make_node("Mul", [rounded.scale, weight_scale], f"{name}.scales")
    scaled = make_node("Mul", [floats.outputs[0], scale.outputs[0]], f"{name}.scaled")
    return [product, floats, scale, scaled]


def check_operators(model: ir.Model, ops: str, source: str | Path) -> None:
    """Hold that a quantized graph of ``standard`` operators has none of ONNX Runtime.

    Raises:
        InputError: The float model brought some along.
    """
    if ops == "microsoft":
        return
    left = Counter(
        node.op_type for node in model.graph.all_nodes() if node.domain == MICROSOFT
    ).most_common(3)
    if left:
        names = ", ".join(f"{count} {name}" for name, count in left)
        raise InputError(
            f"{source} holds operators of {MICROSOFT} ({names}), which stay: no file of standard operators",
            hint=option("ops", "microsoft"),
        )
