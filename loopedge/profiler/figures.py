"""The figures of a run by their names: value, range over the processes, and what is beyond the noise."""

import math
from collections.abc import Sequence

from loopedge.profiler.client_report import AnyRun
from loopedge.profiler.result import GpuMemory, Run, Spread
from loopedge.units import ratio_text, size_text, time_text

__all__ = [
    "BUSY",
    "FIGURE_NAMES",
    "GPU_FIGURES",
    "LATENCY",
    "MS_PER_SECOND",
    "beyond_noise",
    "busy_ratio",
    "figure_of",
    "figure_text",
    "memory_figure",
    "quotient_range",
    "slowdown",
    "spread_of",
    "stopped_early",
]

BUSY = 1.5
"""Median against the fastest run: beyond this, something else was running."""

STORED = frozenset({"file_bytes", "weight_bytes"})
"""Read from files: they do not swing."""

KERNEL_BATCH_BYTES = 256 * 1024
"""The kernel counts a thread's pages in batches of 64 (proc(5): "these values are inaccurate")."""

COUNTED = frozenset({"anon_bytes", "mapped_bytes", "uss_bytes", "rss_load_bytes", "rss_peak_bytes"})

LATENCY = "latency_ms.p50"
MS_PER_SECOND = 1000.0

GPU_FIGURES = ("gpu_process_bytes", "gpu_parts_bytes")
"""Memory on the GPU: what the driver counts, and what the session does."""

FIGURE_NAMES = {
    "file_bytes": "file",
    "weight_bytes": "weights",
    "anon_bytes": "anonymous memory after load",
    "uss_bytes": "USS",
    "rss_load_bytes": "RSS after load",
    "rss_peak_bytes": "peak memory",
    "mapped_bytes": "file-mapped memory",
    "gpu_process_bytes": "GPU memory",
    "gpu_parts_bytes": "GPU memory of the session",
    "time_ratio": "time against the first run",
    "latency_ms.p50": "median latency",
    "load_seconds": "load time",
    "heap_bytes": "WASM heap",
}
"""Figures in words."""


def figure_of(run: AnyRun, figure: str) -> float:
    """Return a figure by its name: an attribute of the run; ``latency_ms.p50``, the median; or of its GPU.

    ``gpu_process_bytes`` is the memory of the process on the GPU beyond the context; ``gpu_parts_bytes`` weights,
    workspace and activations. NaN: the driver does not say, or the client could not measure it.
    """
    if figure == LATENCY:
        return run.latency_ms.p50
    if figure in GPU_FIGURES:
        return _gpu_figure(run.gpu, figure)
    value = getattr(run, figure, None)
    return math.nan if value is None else float(value)


def figure_text(figure: str, value: float) -> str:
    """Say a figure with its unit: ``66 MiB``, ``240 ms``, ``1.02x``."""
    if figure.endswith("_bytes"):
        return size_text(value)
    if figure == "time_ratio":
        return ratio_text(value)
    return time_text(value * MS_PER_SECOND if figure.endswith("_seconds") else value)


def memory_figure(runs: Sequence[Run]) -> str:
    """Return the figure that these runs' memory is compared by: of the GPU where all ran there."""
    for figure in GPU_FIGURES:
        if all(math.isfinite(figure_of(run, figure)) for run in runs):
            return figure
    return "rss_peak_bytes"


def _gpu_figure(gpu: GpuMemory | None, figure: str) -> float:
    if gpu is None or (figure == GPU_FIGURES[0] and gpu.process_bytes is None):
        return math.nan
    if figure == GPU_FIGURES[0]:
        return float(gpu.process_bytes or 0)
    return float(gpu.weights_bytes + (gpu.workspace_bytes or 0) + (gpu.activations_bytes or 0))


def spread_of(run: AnyRun, figure: str) -> Spread | None:
    """Return smallest and largest value over the processes; None where a single one measured it."""
    if figure in STORED:
        value = figure_of(run, figure)
        return Spread(low=value, high=value)
    return run.spread.get(figure) if run.processes > 1 else None


def beyond_noise(one: AnyRun, other: AnyRun, figure: str) -> bool | None:
    """Tell whether two runs differ by more than their processes do among themselves.

    Returns:
        True where the ranges over the processes do not meet; None where one of them is not known.
        Memory that differs by less than the kernel counts exactly is never beyond it.
    """
    if figure in COUNTED:
        apart = abs(figure_of(one, figure) - figure_of(other, figure))
        if apart <= KERNEL_BATCH_BYTES:
            return False
    a, b = spread_of(one, figure), spread_of(other, figure)
    if a is None or b is None:
        return None
    return a.high < b.low or b.high < a.low


def quotient_range(over: Run, under: Run, figure: str) -> Spread | None:
    """Return the range of the quotient of a figure of two runs, at its widest."""
    a, b = spread_of(over, figure), spread_of(under, figure)
    if a is None or b is None or b.low <= 0 or b.high <= 0:
        return None
    return Spread(low=a.low / b.high, high=a.high / b.low)


def busy_ratio(run: AnyRun) -> float:
    """Return by what the median inference is slower than the fastest; above `BUSY` it is noise."""
    return slowdown(run.latency_ms.p50, run.latency_ms.min)


def slowdown(p50_ms: float, min_ms: float) -> float:
    """Return the median of some latencies against the fastest of them."""
    return p50_ms / min_ms if min_ms > 0 else 1.0


def stopped_early(run: Run) -> bool:
    """Tell whether an early exit ended the loop: the figures are not those of all iterations."""
    return run.form == "loop" and 0 < len(run.iterations) < (run.loops or 0)
