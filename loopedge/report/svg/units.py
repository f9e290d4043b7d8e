"""The unit of an axis: the one in which its largest value has few digits."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AxisUnit", "byte_unit", "time_unit"]

BYTE_UNITS = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))
MS_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisUnit:
    """A unit, and what values are divided by to stand in it."""

    name: str
    divisor: float


def byte_unit(values: Sequence[float]) -> AxisUnit:
    """Return the unit for some numbers of bytes."""
    largest = max(map(abs, values), default=0.0)
    for unit, divisor in BYTE_UNITS:
        if largest >= 2 * divisor:
            return AxisUnit(name=unit, divisor=divisor)
    return AxisUnit(name="bytes", divisor=1.0)


def time_unit(values: Sequence[float]) -> AxisUnit:
    """Return the unit for some milliseconds."""
    if max(values, default=0.0) >= 2 * MS_PER_SECOND:
        return AxisUnit(name="s", divisor=MS_PER_SECOND)
    return AxisUnit(name="ms", divisor=1.0)
