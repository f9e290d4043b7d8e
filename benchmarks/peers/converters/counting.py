"""Count the matrix products that ONNX Runtime computes in eight bits."""

from pathlib import Path

import onnx
import onnxruntime

__all__ = ["count_products", "count_run_products"]

LOG_ERROR = 3
EIGHT_BIT = {
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearMatMul",
}
FLOAT = {"FusedGemm", "FusedMatMul", "Gemm", "MatMul"}


def count_run_products(path: Path) -> tuple[int, int]:
    """Return `count_products` of the graph that ONNX Runtime makes of a file."""
    optimized = path.with_name("optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = LOG_ERROR
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    counts = count_products(onnx.load(optimized).graph)
    optimized.unlink()
    return counts


def count_products(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Return how many products run in eight bits, and how many those and the stored float ones are.

    Args:
        graph: The graph; the bodies of its loops are counted once.
        outer: Names of stored weights that it sees from outside.
    """
    stored = outer | {tensor.name for tensor in graph.initializer}
    quantized = products = 0
    for node in graph.node:
        if node.op_type in EIGHT_BIT:
            quantized, products = quantized + 1, products + 1
        elif node.op_type in FLOAT and stored & set(node.input[:2]):
            products += 1
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = count_products(attribute.g, stored)
                quantized, products = quantized + inner[0], products + inner[1]
    return quantized, products
