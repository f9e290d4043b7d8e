"""The figures of a run by their names: value, range over the processes, and what is beyond the noise."""

from loopedge.profiler.result import Run, Spread

__all__ = [
    "BUSY",
    "beyond_noise",
    "busy_ratio",
    "figure_of",
    "quotient_range",
    "spread_of",
]

BUSY = 1.5
"""Median against the fastest run: beyond this, something else was running."""

STORED = frozenset({"file_bytes", "weight_bytes"})
"""Read from files: they do not swing."""

LATENCY = "latency_ms"
"""As a figure it is the median, p50."""


def figure_of(run: Run, figure: str) -> float:
    """Return a figure by its name; ``latency_ms`` is the median."""
    return run.latency_ms.p50 if figure == LATENCY else float(getattr(run, figure))


def spread_of(run: Run, figure: str) -> Spread | None:
    """Return smallest and largest value over the processes; None where a single one measured it."""
    if figure in STORED:
        value = figure_of(run, figure)
        return Spread(low=value, high=value)
    return run.spread.get(figure) if run.processes > 1 else None


def beyond_noise(one: Run, other: Run, figure: str) -> bool | None:
    """Tell whether two runs differ by more than their processes do among themselves.

    Returns:
        True where the ranges over the processes do not meet; None where one of them is not known.
    """
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


def busy_ratio(run: Run) -> float:
    """Return by what the median inference is slower than the fastest; above `BUSY` it is noise."""
    return run.latency_ms.p50 / run.latency_ms.min if run.latency_ms.min > 0 else 1.0
