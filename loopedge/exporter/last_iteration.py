"""The last step of an export: the last iteration computes only the positions that the coda reads."""

import onnx_ir as ir

from loopedge.graph.positions.last_iteration import LastIterationOutcome, narrow_last_iteration

__all__ = ["last_iteration_notes", "take_out_last"]


def take_out_last(graph: ir.Model, wanted: bool | None) -> LastIterationOutcome:
    """Apply `narrow_last_iteration`, unless it is not wanted; None: where it is possible."""
    if wanted is False:
        return LastIterationOutcome(applied=False, reason="it was switched off")
    return narrow_last_iteration(graph)


def last_iteration_notes(outcome: LastIterationOutcome, wanted: bool | None) -> list[str]:
    """Say why nothing was done, where it was asked for."""
    if outcome.applied or not wanted:
        return []
    return [f"the last iteration computes all positions: {outcome.reason}"]
