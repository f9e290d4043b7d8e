"""Compare an inference with what this machine's own GEMM and copy reach."""

from loopedge.profiler.dissection.work import Work
from loopedge.profiler.result import MachineLimits, Roofline

__all__ = ["compare_with_limits"]

BILLION = 1e9
MS_PER_SECOND = 1e3
BINDING = 0.5
"""Share of a limit below which it does not hold an inference up."""


def compare_with_limits(work: Work, limits: MachineLimits, latency_ms: float) -> Roofline | None:
    """Return how near an inference comes to the machine's limits.

    ``compute_share`` is the time that its products would take at the limits, integer ones at that of
    int8, against the time measured; ``copy_share`` the time that its bytes would take at the copy's rate.
    The latter can exceed 1: what fits into the caches moves faster than a copy that does not.

    Args:
        work: Of one inference.
        limits: Measured in the same profile, with as many threads.
        latency_ms: Of the fastest inference, as the limits are those of fastest runs.

    Returns:
        None where nothing was counted.
    """
    seconds = latency_ms / MS_PER_SECOND
    operations = work.float_operations + work.int8_operations
    if operations == 0 or work.moved_bytes == 0:
        return None
    int8_limit = limits.int8_gops_per_second or limits.gflops_per_second
    at_limits = (
        work.float_operations / limits.gflops_per_second + work.int8_operations / int8_limit
    ) / BILLION
    gb = work.moved_bytes / BILLION
    compute_share = at_limits / seconds
    copy_share = gb / limits.gb_per_second / seconds
    return Roofline(
        gflop=operations / BILLION,
        gb=gb,
        gflops_per_second=operations / BILLION / seconds,
        gb_per_second=gb / seconds,
        compute_share=compute_share,
        copy_share=copy_share,
        bound=_bound(compute_share, copy_share),
    )


def _bound(compute_share: float, copy_share: float) -> str:
    """Name the limit that holds an inference up; small operators come near neither."""
    if max(compute_share, copy_share) < BINDING:
        return "neither"
    return "compute" if compute_share >= copy_share else "memory"
