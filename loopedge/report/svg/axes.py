"""Axes of a chart: bounds, ticks, and where a value stands on the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Scale", "axis_of", "scale_of"]

TICKS = 5
LOG_FROM = 8.0
"""Axes whose values differ by more than this factor are logarithmic, where they may be."""
MOST_LOG_TICKS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis.

    Args:
        name: With its unit.
        logarithmic: May be logarithmic, where the values span much.
        from_zero: A linear axis begins at zero.
        ticks: Values to name; default: round ones.
        even: Its values stand in even steps, in their order, whatever lies between them.
    """

    name: str
    logarithmic: bool = False
    from_zero: bool = True
    ticks: Sequence[float] | None = None
    even: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values of an axis to places on the picture; ``steps`` are the values of an even one."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool = False
    steps: tuple[float, ...] = ()

    def place(self, value: float) -> float:
        """Return where a value stands."""
        return self.start + self._part(value) * (self.end - self.start)

    def _part(self, value: float) -> float:
        if self.steps:
            return (self.steps.index(value) + 0.5) / len(self.steps)
        if self.log:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / ((self.high - self.low) or 1.0)

    @staticmethod
    def text(tick: float) -> str:
        """Name a tick."""
        return f"{tick:.10g}" if abs(tick) >= 1e-9 else "0"


def scale_of(axis: Axis, values: Sequence[float], *, start: float, end: float) -> Scale:
    """Return the scale of an axis that holds all values.

    Args:
        axis: What is asked of it.
        values: Finite, at least one.
        start: Place of the lower bound on the picture.
        end: Place of the upper bound.
    """
    low, high = min(values), max(values)
    if axis.even:
        steps = tuple(sorted(set(values)))
        return Scale(low=low, high=high, start=start, end=end, ticks=steps, steps=steps)
    if axis.logarithmic and low > 0 and high / low > LOG_FROM:
        ticks = _log_ticks(low, high)
        low, high = min(low / 1.15, ticks[0]), max(high * 1.15, ticks[-1])
        return Scale(low=low, high=high, start=start, end=end, ticks=ticks, log=True)
    if axis.ticks is not None:
        room = (high - low) * 0.04 or 1.0
        low, high = min(axis.ticks) - room, max(axis.ticks) + room
        return Scale(low=low, high=high, start=start, end=end, ticks=axis.ticks)
    first, last, step = axis_of(min(low, 0.0) if axis.from_zero else low, high)
    first = max(first, 0.0) if low >= 0 else first
    ticks = [first + step * i for i in range(round((last - first) / step) + 1)]
    return Scale(low=first, high=last, start=start, end=end, ticks=ticks)


def axis_of(low: float, high: float) -> tuple[float, float, float]:
    """Return round bounds that hold two values, and a round step between their ticks."""
    span = (high - low) or abs(high) or 1.0
    raw = span / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    if last - first < 2:  # equal values stand in the middle
        first, last = first - 1, last + 1
    return first * step, last * step, step


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within, or around, two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low / 1.05 <= tick <= high * 1.05]
    if len(inside) > MOST_LOG_TICKS:
        inside = [tick for tick in inside if f"{tick:e}".startswith("1")]
    return inside if len(inside) > 1 else [low, high]
