"""Integer linears are counted in whatever way a tool wrote them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.integer_linears import count_integer_linears

MICROSOFT = "com.microsoft"


def graph_of(*nodes: ir.Node, stored: list[ir.Value]) -> ir.Model:
    graph = ir.Graph([], [], nodes=list(nodes), initializers=stored, opset_imports={"": 21})
    return ir.Model(graph, ir_version=10)


def stored(name: str, array: np.ndarray) -> ir.Value:
    return ir.val(name, const_value=ir.tensor(array, name=name))


INT8 = np.zeros((4, 4), np.int8)
FLOAT = np.zeros((4, 4), np.float32)
SCALE = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("op", "domain", "place"),
    [
        ("DynamicQuantizeMatMul", MICROSOFT, 1),
        ("MatMulIntegerToFloat", MICROSOFT, 1),
        ("MatMulNBits", MICROSOFT, 1),
        ("MatMulInteger", "", 1),
        ("MatMulInteger", "", 0),
        ("QLinearMatMul", "", 3),
        ("QGemm", MICROSOFT, 3),
    ],
)
def test_an_integer_product_with_a_stored_weight(op: str, domain: str, place: int) -> None:
    weight = stored("w", INT8)
    inputs: list[ir.Value | None] = [ir.val(f"x{i}") for i in range(4)]
    inputs[place] = weight
    coverage = count_integer_linears(graph_of(ir.node(op, inputs, domain=domain), stored=[weight]))
    assert (coverage.quantized, coverage.total) == (1, 1)


def test_a_weight_behind_a_dequantize_and_a_transpose() -> None:
    weight, scale = stored("w", INT8), stored("s", SCALE)
    dequantize = ir.node("DequantizeLinear", [weight, scale])
    transpose = ir.node("Transpose", [dequantize.outputs[0]])
    product = ir.node("MatMul", [ir.val("x"), transpose.outputs[0]])
    coverage = count_integer_linears(
        graph_of(dequantize, transpose, product, stored=[weight, scale])
    )
    assert (coverage.quantized, coverage.total) == (1, 1)


def test_a_float_weight_and_products_of_activations() -> None:
    weight = stored("w", FLOAT)
    linear = ir.node("MatMul", [ir.val("x"), weight])
    attention = ir.node("MatMul", [linear.outputs[0], ir.val("y")])
    integers = ir.node("MatMulInteger", [ir.val("a"), ir.val("b")])
    coverage = count_integer_linears(graph_of(linear, attention, integers, stored=[weight]))
    assert (coverage.quantized, coverage.total) == (0, 1)
