"""Count how many of a graph's products with weights run in integers, whoever quantized them."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.weight_reads import integer_bytes, weight_reads

__all__ = ["IntegerLinears", "count_integer_linears"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerLinears:
    """Products with a weight in integers, of all that read weights. Products of two activations do not count.

    ``bytes`` are those of the weights in integers, ``total_bytes`` those of all weights that products read, as
    stored, each once.
    """

    quantized: int
    total: int
    bytes: int
    total_bytes: int


def count_integer_linears(model: ir.Model) -> IntegerLinears:
    """Count the products with weights of the main graph, of every body and of every call of a function.

    A product is quantized when its weight is stored in integers of at most 8 bits: an integer product, or a float
    one behind a DequantizeLinear (QDQ).
    """
    reads = weight_reads(model)
    integers, total = integer_bytes(reads)
    return IntegerLinears(
        quantized=sum(read.in_integers for read in reads),
        total=len(reads),
        bytes=integers,
        total_bytes=total,
    )
