"""Weights that go from the folder into 8 or 4 bits: a part of one is in memory in float32, never a whole one."""

import onnx_ir as ir

from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.integer_weights.embedding_rows import find_embeddings, store_rows
from loopedge.graph.integer_weights.tied_table import find_tied_table
from loopedge.graph.passes.table_head import MICROSOFT
from loopedge.graph.weights import linears

__all__ = ["pack_weights"]


def pack_weights(graph: ir.Model, bits: int) -> None:
    """Store the linears of a graph in blocks, and its embedding in int8 rows or with a tied head, in place.

    Requires: every linear is a MatMul with a weight [in, out] that no other node reads, or the head of a tied table.

    Ensures: as `loopedge.graph.integer_weights`; the file is that of ``loopedge.quantize`` with ``weight-int8`` or
    ``weight-int4``.
    """
    scheme, packed = BlockWeights(bits), dict[ir.Value, None]()
    embeddings = find_embeddings(graph)
    found = linears(graph)
    for item in found:
        if scheme.reason_for_float(item.weight, 1 - item.index) is not None:
            continue
        table = find_tied_table(item)
        if table is None and item.index == 1 and item.weight not in packed:
            scheme.store_weight(item.weight)
        if table is None and item.index != 1:
            continue
        scheme.replace_linear(item if table is None else scheme.store_table(table))
        packed[item.weight] = None
    for rows in embeddings:
        if rows.weight not in packed:
            store_rows(rows)
            packed[rows.weight] = None
    graph.graph.opset_imports[MICROSOFT] = 1
