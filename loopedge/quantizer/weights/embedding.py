"""Embedding tables as int8 rows: what is gathered by ids is stored in eight bits, whatever the scheme.

A row is one word's and has one scale: Gather of the row, Cast, Mul with the gathered scale. A table that
is also the head is not stored by this module: the head's scheme stores it (`loopedge.graph.integer_weights.tied_table`).
"""

from collections.abc import Mapping

import onnx_ir as ir

from loopedge.graph.integer_weights.embedding_rows import (
    NARROWEST,
    SMALLEST_BYTES,
    EmbeddingTable,
    store_rows,
)
from loopedge.graph.weights import stored_bytes
from loopedge.quantizer.coverage import Coverage, Skipped

__all__ = ["quantize_embeddings"]


def quantize_embeddings(
    tables: list[EmbeddingTable], *, keep: Mapping[str, str] | None = None
) -> Coverage:
    """Store tables as s8 rows, in place.

    Args:
        tables: Of `find_embeddings`, found before the linears were replaced.
        keep: Tables to leave in float, by name, with the reason.

    Returns:
        The tables by their names; one that its head's scheme has stored counts as quantized.
    """
    coverage = Coverage()
    for table in tables:
        name = table.weight.name or ""
        reason = None if _is_stored(table.weight) else (keep or {}).get(name) or _reason(table)
        if reason is not None:
            coverage.skipped.append(Skipped(name=name, reason=reason))
            continue
        if not _is_stored(table.weight):
            store_rows(table)
        coverage.quantized.append(name)
        coverage.bytes += stored_bytes(table.weight)
    coverage.total_bytes = sum(stored_bytes(table.weight) for table in tables)
    return coverage


def _is_stored(weight: ir.Value) -> bool:
    return weight.const_value is not None and weight.const_value.dtype != ir.DataType.FLOAT


def _reason(table: EmbeddingTable) -> str | None:
    """Say why a table must or should stay in float; None where it need not."""
    others = [user.op_type for user in table.weight.consumers() if user not in table.gathers]
    if others:
        return f"{table.weight.name} is also read by {others[0]}"
    tensor = table.weight.const_value
    if tensor is None:
        return f"{table.weight.name} holds no values"
    width = int(tensor.shape.numpy()[1])
    if tensor.nbytes < SMALLEST_BYTES:
        return f"{table.weight.name} takes {tensor.nbytes} bytes, below {SMALLEST_BYTES}"
    return f"its rows have {width} values, below {NARROWEST}" if width < NARROWEST else None
