"""Ranges over the processes, in words."""

from loopedge.profiler.figures import figure_of, spread_of
from loopedge.profiler.result import Run

__all__ = ["range_text", "spread_text"]

STEADY = 0.005
"""Half a range of less than this part of a figure is not shown beside it."""


def spread_text(run: Run, figure: str, *, least: float = STEADY) -> str:
    """Say half the range of a figure in percent of it: `` ±3%``; nothing where it is less."""
    spread, value = spread_of(run, figure), figure_of(run, figure)
    if spread is None or value <= 0:
        return ""
    half = (spread.high - spread.low) / 2 / value
    return f" ±{half:.0%}" if half >= least else ""


def range_text(low: str, high: str) -> str:
    """Say ``65.3 to 66.7 MiB`` of two values with their units; the first unit is left out where alike."""
    value, _, unit = low.partition(" ")
    alike = bool(unit) and high.partition(" ")[2] == unit
    return f"{value if alike else low} to {high}"
