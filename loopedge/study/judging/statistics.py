"""Means over seeds, and intervals that say when a difference counts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import stdtrit

__all__ = ["Interval", "OverSeeds", "interval_of", "over_seeds", "paired", "student_quantile"]

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""Fewer give no interval: with two, any difference would hide in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSeeds:
    """A figure over the seeds: mean and sample standard deviation; ``sd`` is None for a single value."""

    mean: float
    sd: float | None
    values: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its 95 % interval (Student's t); the bounds are None below three values."""

    mean: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference counts: all of the interval is on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, and whether the difference counts."""
        return asdict(self) | {"counts": self.excludes_zero}


def over_seeds(values: Sequence[float]) -> OverSeeds | None:
    """Return mean and deviation of the finite values; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    sd = statistics.stdev(finite) if len(finite) > 1 else None
    return OverSeeds(mean=statistics.fmean(finite), sd=sd, values=finite)


def paired(mine: Mapping[str, float], other: Mapping[str, float]) -> Interval | None:
    """Return the mean of ``mine - other`` over the blocks that both have, and its interval."""
    return interval_of([mine[block] - other[block] for block in sorted(mine) if block in other])


def interval_of(differences: Sequence[float]) -> Interval | None:
    """Return the mean of paired differences and its interval; None where there is no pair."""
    over = over_seeds(differences)
    if over is None:
        return None
    count = len(over.values)
    if count < LEAST_SEEDS or over.sd is None:
        return Interval(mean=over.mean, low=None, high=None)
    half = student_quantile(count) * over.sd / math.sqrt(count)
    return Interval(mean=over.mean, low=over.mean - half, high=over.mean + half)


def student_quantile(count: int) -> float:
    """Return how many standard errors the 95 % interval of a mean of ``count`` values has to each side.

    The two-sided quantile of Student's t for ``count - 1`` degrees of freedom.
    """
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
