"""Means over seeds, and intervals that say when a difference counts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MOST_SEEDS", "Interval", "Spread", "interval_of", "paired", "spread_of"]

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom."""

MOST_SEEDS = len(STUDENT) + 1
LEAST_SEEDS = 3
"""Fewer give no interval: with two, any difference would hide in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation; ``sd`` is None for a single value."""

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


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return the spread of finite values; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    sd = statistics.stdev(finite) if len(finite) > 1 else None
    return Spread(mean=statistics.fmean(finite), sd=sd, values=finite)


def paired(mine: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    """Return the mean of ``mine - other`` over the seeds that both have, and its interval."""
    return interval_of([mine[seed] - other[seed] for seed in sorted(mine) if seed in other])


def interval_of(differences: Sequence[float]) -> Interval | None:
    """Return the mean of paired differences and its interval; None where there is no pair."""
    spread = spread_of(differences)
    if spread is None:
        return None
    count = len(spread.values)
    if count < LEAST_SEEDS or spread.sd is None:
        return Interval(mean=spread.mean, low=None, high=None)
    half = STUDENT[count - 2] * spread.sd / math.sqrt(count)
    return Interval(mean=spread.mean, low=spread.mean - half, high=spread.mean + half)
