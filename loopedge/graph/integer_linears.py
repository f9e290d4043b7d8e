"""Count how many of a graph's linears run in integers, whoever quantized them."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.names import in_last_iteration
from loopedge.graph.operators import LINEARS, WEIGHT_PLACES, Fact, having
from loopedge.graph.weights import linears, other_products

__all__ = ["IntegerLinears", "count_integer_linears"]

INTEGER_PRODUCTS = having(Fact.MATMUL) - having(Fact.FLOAT)
PASSED_THROUGH = having(Fact.VIEW) | {"Cast", "DequantizeLinear", "Transpose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerLinears:
    """Linears with an integer weight, of all linears. Products of two activations do not count."""

    quantized: int
    total: int


def count_integer_linears(model: ir.Model) -> IntegerLinears:
    """Count the products with weights of the main graph and of every Loop body.

    A linear is quantized when its weight is stored in integers of at most 8 bits: an integer
    matrix product, or a MatMul or Gemm behind a DequantizeLinear (QDQ). Those of a last iteration
    that stands behind the Loop are those of the body again, and do not count.
    """
    counted = [node for node in model.graph.all_nodes() if not in_last_iteration(node)]
    quantized = sum(_is_quantized(node) for node in counted)
    products = [item.node for item in linears(model)] + other_products(model)
    floats = sum(not in_last_iteration(node) for node in products)
    return IntegerLinears(quantized=quantized, total=quantized + floats)


def _is_quantized(node: ir.Node) -> bool:
    if node.op_type in LINEARS and not node.domain:
        return any(_is_dequantized(value) for value in node.inputs[:2])
    indices = WEIGHT_PLACES[node.op_type] if node.op_type in INTEGER_PRODUCTS else ()
    return any(index < len(node.inputs) and _is_stored(node.inputs[index]) for index in indices)


def _is_dequantized(value: ir.Value | None) -> bool:
    """Tell a stored integer weight that reaches a float product through a DequantizeLinear."""
    producer = None if value is None else value.producer()
    seen = False
    while producer is not None and producer.op_type in PASSED_THROUGH:
        seen = seen or producer.op_type == "DequantizeLinear"
        value = producer.inputs[0]
        producer = None if value is None else value.producer()
    return seen and _is_stored(value)


def _is_stored(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return tensor is not None and len(tensor.shape) >= 2 and tensor.dtype.bitwidth <= 8
