"""How the figures of a pilot are written, the same in every language: digits, signs, shares, times."""

import math
from dataclasses import dataclass

from loopedge.study.judging.statistics import Interval, OverSeeds
from loopedge.units import time_text

__all__ = [
    "Names",
    "bounds_text",
    "difference_text",
    "figure_text",
    "is_nothing",
    "is_slower",
    "minutes_of",
    "quality_text",
    "sample_time_text",
    "share_text",
]

LEAST_SHARE, MOST_SHARE = 0.01, 0.99
SLOWER = 1.05
"""From so many times the time on a model is called slower: two measurements of one model differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What sentences call things, and how fine their differences are.

    Args:
        metric: Of the task.
        margin: The difference that does not matter, in its unit.
        margin_text: As it was asked for: ``2%``.
        step: The last digit that differences are written with; 0: three significant digits.
    """

    metric: str
    margin: float = 0.0
    margin_text: str = ""
    step: float = 0.0

    @staticmethod
    def step_of(margin: float, deviation: float | None) -> float:
        """Return the last digit that is worth writing: two digits of what separates models from noise.

        Args:
            margin: The difference that does not matter.
            deviation: Of one run.
        """
        scale = max(margin, (deviation or 0.0) / 10)
        return 10.0 ** (math.floor(math.log10(scale)) - 1) if scale > 0 else 0.0


def figure_text(value: float) -> str:
    """Return a metric with four digits: ``3.592``."""
    return f"{value:.4g}"


def quality_text(quality: OverSeeds | None) -> str:
    """Return ``12.1 ± 0.3``, or the single value."""
    if quality is None:
        return "-"
    spread = f" ± {quality.sd:.2g}" if quality.sd is not None else ""
    return figure_text(quality.mean) + spread


def is_slower(ratio: float) -> bool:
    """Tell whether a model that takes so many times the time of another is called slower."""
    return ratio >= SLOWER


def is_nothing(value: float, names: Names) -> bool:
    """Return whether a difference is below the last digit that is written."""
    return abs(value) < names.step / 2 or value == 0


def difference_text(value: float, names: Names) -> str:
    """Return a difference with its sign, as fine as margin and noise let it be read: ``-0.12``, ``0``."""
    if is_nothing(value, names):
        return "0"
    if not names.step:
        return f"{value:+.3g}"
    return f"{value:+.{_decimals(names.step)}f}"


def bounds_text(interval: Interval, names: Names) -> tuple[str, str] | None:
    """Return both ends of an interval; None where there is none."""
    if interval.low is None or interval.high is None:
        return None
    return difference_text(interval.low, names), difference_text(interval.high, names)


def share_text(share: float) -> str:
    """Return a probability as percent, never as certain: ``95 %``, ``over 99 %``."""
    if share > MOST_SHARE:
        return "over 99 %"
    return "under 1 %" if share < LEAST_SHARE else f"{share:.0%}".replace("%", " %")


def sample_time_text(seconds: float) -> str:
    """Return the time of a sample: ``0.42 ms``."""
    return time_text(seconds * 1000)


def minutes_of(seconds: float) -> tuple[float, str]:
    """Return a time as a number and its unit, ``s``, ``min`` or ``h``: few digits, for it is an estimate."""
    if seconds < 90:
        return float(max(1, round(seconds))), "s"
    if seconds < 90 * 60:
        return float(round(seconds / 60)), "min"
    return round(seconds / 3600, 1), "h"


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))
