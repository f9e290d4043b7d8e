"""The step from table row to table row that holds for most of them: of equal length, or by the calendar."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loopedge.data.tables.timeline.frequency import EVERY_DAY, WORKING_DAYS, Frequency
from loopedge.data.tables.timeline.zones import DAY
from loopedge.data.tables.times import Times
from loopedge.files.arrays import Array

__all__ = ["REGULAR", "Steps", "find_steps"]

REGULAR = 0.9
"""Share of the steps that must be alike."""
KNOWN = 0.5
"""The same of a step that is known already, from the table that a model was trained on: a short table may have gaps."""
SAME = 0.05
"""Of a step: how far another may be off that is alike; an hour of a day, where clocks change."""
MISSING = 1.5
"""Steps, of times that vary, from which on a row between is missing."""
VARIED = 0.25
"""Of a step: how far the steps of a logger may be off whose times vary."""
HOLIDAYS = 2
"""Days in a row that may be missing where some days of the week always are."""
SAMPLED = 65_536
"""Table rows on which a step is looked for; all are held against it. As many are looked at together."""
LEAST_WEEKS = 3
"""Weeks that must be seen before days of the week that never occur are taken for free ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of times, series by series.

    Args:
        frequency: That of most steps, if there is one.
        typical: Of steps that vary around one length: that length; nanoseconds, or units of the numbers.
        gaps: int64 (gaps,): table rows before which others are missing.
        lengths: float64 (gaps,): how many steps each of these rows is behind the one before.
    """

    frequency: Frequency | None = None
    typical: int | float | None = None
    gaps: Array
    lengths: Array

    @property
    def are_regular(self) -> bool:
        """Whether a step holds for most table rows, or most vary around one."""
        return self.frequency is not None or self.typical is not None


def find_steps(times: Times, bounds: Array, known: Frequency | None = None) -> Steps:
    """Return the step that holds for most table rows.

    Args:
        times: Ascending in each series.
        bounds: int64 (series + 1,): series i holds the table rows from ``bounds[i]`` to ``bounds[i + 1]``.
        known: The step that is expected: it is taken where half of the rows have it.
    """
    none = Steps(frequency=known, gaps=np.empty(0, np.int64), lengths=np.empty(0))
    rows = _sampled_rows(len(times.moments), bounds)
    if not len(rows):
        return none
    if known is not None:
        steps, alike = _hold(times, bounds, known)
        if alike >= KNOWN:
            return steps
    for frequency in _candidates(times, rows):
        steps, alike = _hold(times, bounds, frequency)
        if alike >= REGULAR:
            return steps
    return _varied(times, bounds, rows) or replace(none, frequency=None)


def _sampled_rows(rows: int, bounds: Array) -> Array:
    """Return table rows that have one before them in their series, evenly spread where there are many."""
    chosen = np.arange(1, rows)
    if rows > SAMPLED:
        chosen = np.linspace(1, rows - 1, SAMPLED).astype(np.int64)
    return chosen[~np.isin(chosen, bounds)]


def _middle(values: Array) -> int | float:
    """Return the lower median, one of the values: of values of which most are equal, that one."""
    place = (len(values) - 1) // 2
    found: int | float = np.partition(values, place)[place].item()
    return found


def _candidates(times: Times, rows: Array) -> Iterator[Frequency]:
    """Yield frequencies that some steps have."""
    before, behind = times.moments[rows - 1], times.moments[rows]
    step = _middle(behind - before)
    if times.kind == "number":
        if step > 0:
            yield Frequency(unit="number", count=step)
        return
    if step < DAY - DAY // 12:
        yield Frequency(unit="nanosecond", count=step)
        return
    shown = times.clock(behind)
    days = shown - times.clock(before)
    if step > 27 * DAY:
        yield from _calendar_months(times.clock(before), shown)
    whole = round(_middle(days) / DAY)
    if whole and _middle(days) % DAY == 0:
        yield Frequency(unit="day", count=whole)
        if (days > DAY).any():
            yield from _working_days(times)
    yield Frequency(unit="nanosecond", count=step)


def _calendar_months(before: Array, behind: Array) -> Iterator[Frequency]:
    dates = np.floor_divide(behind, DAY).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    months_before = np.floor_divide(before, DAY).astype("datetime64[D]").astype("datetime64[M]")
    count = _middle((months - months_before).astype(np.int64))
    if count < 1:
        return
    day = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    last = ((months + 1).astype("datetime64[D]") - dates).astype(np.int64) == 1
    if (day == 1).mean() >= REGULAR:
        yield Frequency(unit="month", count=count, day=1)
    elif last.mean() >= REGULAR:
        yield Frequency(unit="month", count=count, day=31)
    else:
        yield Frequency(unit="month", count=count, day=int(_middle(day[~last])))


def _working_days(times: Times) -> Iterator[Frequency]:
    """Yield the days of the week that occur, where some never do."""
    seen = np.zeros(7, bool)
    for first in range(0, len(times.moments), SAMPLED):
        shown = times.clock(times.moments[first : first + SAMPLED])
        seen[np.unique((np.floor_divide(shown, DAY) + 3) % 7)] = True  # 1970 began on a Thursday
    mask = "".join("01"[bool(day)] for day in seen)
    if mask == EVERY_DAY:
        return
    if not seen[5:].any():
        yield Frequency(unit="weekday", weekmask=WORKING_DAYS)
    if len(times.moments) >= LEAST_WEEKS * seen.sum():
        yield Frequency(unit="weekday", weekmask=mask)


def _hold(times: Times, bounds: Array, frequency: Frequency) -> tuple[Steps, float]:
    """Hold a frequency against all table rows; return the steps, and the share of them that are alike."""
    most = 1 + SAME
    if frequency.unit == "weekday" and frequency.weekmask.count("1") >= 5:
        most = 1 + HOLIDAYS + SAME
    slack = _slack(times, frequency)
    gaps, alike, total = _Gaps(most), 0, 0
    for rows, lengths in _lengths(times, bounds, frequency):
        alike += int((np.abs(lengths - 1) <= slack).sum())
        total += len(rows)
        gaps.add(rows, lengths)
    return gaps.steps(frequency=frequency), alike / max(1, total)


class _Gaps:
    """Collects steps that are longer than some number of them."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._rows: list[Array] = [np.empty(0, np.int64)]
        self._lengths: list[Array] = [np.empty(0)]

    def add(self, rows: Array, lengths: Array) -> None:
        long = lengths > self._most
        if long.any():
            self._rows.append(rows[long])
            self._lengths.append(lengths[long])

    def steps(self, **found: Any) -> Steps:
        return Steps(
            gaps=np.concatenate(self._rows), lengths=np.concatenate(self._lengths), **found
        )


def _slack(times: Times, frequency: Frequency) -> float:
    """Return how far off 1 a step may be that is alike."""
    if frequency.unit == "number":
        return 1e-6 if times.moments.dtype.kind == "f" else 0.0
    unzoned = times.kind == "instant" and times.zone is None
    return SAME if unzoned and frequency.unit == "day" else 0.0


def _lengths(
    times: Times, bounds: Array, frequency: Frequency | None, step: float = 1
) -> Iterator[tuple[Array, Array]]:
    """Yield table rows that have one before them in their series, and how many steps they are behind it.

    Args:
        times: Their times.
        bounds: Of the series.
        frequency: What a step is; None: ``step`` nanoseconds, or units of the numbers.
        step: As said.
    """
    if frequency is not None and frequency.unit in ("weekday", "month"):
        for first, end in itertools.pairwise(bounds.tolist()):
            shown = times.clock(times.moments[first:end])
            yield np.arange(first + 1, end), frequency.lengths(shown)
        return
    for first in range(0, len(times.moments) - 1, SAMPLED):
        moments = times.moments[first : first + SAMPLED + 1]
        rows = np.arange(first + 1, first + len(moments))
        if frequency is None:
            lengths = np.diff(moments) / step
        else:
            lengths = frequency.lengths(times.clock(moments) if frequency.is_local else moments)
        inner = ~np.isin(rows, bounds)
        yield rows[inner], lengths[inner]


def _varied(times: Times, bounds: Array, rows: Array) -> Steps | None:
    """Return the step around which times vary, if there is one."""
    typical = _middle(times.moments[rows] - times.moments[rows - 1])
    if typical <= 0:
        return None
    gaps, alike, total = _Gaps(MISSING), 0, 0
    for inner, lengths in _lengths(times, bounds, None, typical):
        alike += int((np.abs(lengths - 1) <= VARIED).sum())
        total += len(inner)
        gaps.add(inner, lengths)
    return gaps.steps(typical=typical) if alike >= REGULAR * total else None
