"""Units of an axis: the one in which its largest value has few digits."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "byte_scale", "time_scale"]

BYTE_UNITS = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))
MS_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A unit, and what values are divided by to be told in it."""

    unit: str
    divisor: float


def byte_scale(values: Sequence[float]) -> Scale:
    """Return the unit for some numbers of bytes."""
    largest = max(map(abs, values), default=0.0)
    for unit, divisor in BYTE_UNITS:
        if largest >= 2 * divisor:
            return Scale(unit=unit, divisor=divisor)
    return Scale(unit="bytes", divisor=1.0)


def time_scale(values: Sequence[float]) -> Scale:
    """Return the unit for some milliseconds."""
    if max(values, default=0.0) >= 2 * MS_PER_SECOND:
        return Scale(unit="s", divisor=MS_PER_SECOND)
    return Scale(unit="ms", divisor=1.0)
