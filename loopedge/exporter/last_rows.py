"""The last step of an export: the last iteration computes only the rows that the coda reads."""

import onnx_ir as ir

from loopedge.graph.rows.last_rows import LastRowsOutcome, compute_last_rows

__all__ = ["last_rows_notes", "take_out_last"]


def take_out_last(graph: ir.Model, wanted: bool | None) -> LastRowsOutcome:
    """Apply `compute_last_rows`, unless it is not wanted; None: where it is possible."""
    if wanted is False:
        return LastRowsOutcome(applied=False, reason="it was switched off")
    return compute_last_rows(graph)


def last_rows_notes(rows: LastRowsOutcome, wanted: bool | None) -> list[str]:
    """Say why nothing was done, where it was asked for."""
    if rows.applied or not wanted:
        return []
    return [f"the last iteration computes all positions: {rows.reason}"]
