"""What the products of a graph read of its weights in one inference."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.ties import nodes_with_runs
from loopedge.graph.operators import PRODUCTS
from loopedge.graph.weights import stored_bytes, weights_read

__all__ = ["WeightReads", "weight_reads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReads:
    """Bytes of the weights of products.

    ``total``: each time that a product runs; ``distinct``: each weight once; ``block``: of one iteration.
    """

    total: int
    distinct: int
    block: int


def weight_reads(model: ir.Model, loops: int | None = None) -> WeightReads:
    """Return what products read of the weights in one inference.

    Args:
        model: The graph.
        loops: Iterations of the cores, where others than its own run.
    """
    read: dict[ir.Value, int] = {}
    for node, runs in nodes_with_runs(model, loops):
        if node.op_type in PRODUCTS:
            for value in weights_read(node):
                read[value] = read.get(value, 0) + runs
    block = {
        value
        for core in Cores(model)
        for node in core.nodes
        if node.op_type in PRODUCTS
        for value in weights_read(node)
    }
    return WeightReads(
        total=sum(runs * stored_bytes(value) for value, runs in read.items()),
        distinct=sum(map(stored_bytes, read)),
        block=sum(map(stored_bytes, block)),
    )
