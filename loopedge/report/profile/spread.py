"""Ranges over the processes, in words."""

from loopedge.profiler.figures import figure_of, spread_of
from loopedge.profiler.result import Run

__all__ = ["half_width", "range_text", "spread_text"]

STEADY = 0.005
"""Half a range of less than this part of a figure is not shown beside it."""


def half_width(run: Run, figure: str) -> float:
    """Return half the range of a figure, in parts of it; 0 where it is not known."""
    spread, value = spread_of(run, figure), figure_of(run, figure)
    return 0.0 if spread is None or value <= 0 else (spread.high - spread.low) / 2 / value


def spread_text(run: Run, figure: str, *, least: float = STEADY) -> str:
    """Say half the range of a figure in percent of it: `` ±3%``; nothing where it is less."""
    half = half_width(run, figure)
    known = spread_of(run, figure) is not None and figure_of(run, figure) > 0
    return f" ±{half:.0%}" if known and half >= least else ""


def range_text(low: str, high: str) -> str:
    """Say ``65.3 to 66.7 MiB`` of two values with their units; the first unit is left out where alike."""
    value, _, unit = low.partition(" ")
    alike = bool(unit) and high.partition(" ")[2] == unit
    return f"{value if alike else low} to {high}"
