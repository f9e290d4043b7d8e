"""Gaps of a table: where table rows are missing between two times, found, said, and kept apart."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.data.tables.timeline.disorder import ZONES
from loopedge.data.tables.timeline.frequency import Frequency, frequency_option, parse_frequency
from loopedge.data.tables.timeline.places import Places
from loopedge.data.tables.timeline.steps import REGULAR, Steps, find_steps
from loopedge.data.tables.timeline.zones import DAY, HOUR, Zone
from loopedge.data.tables.times import Times
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option
from loopedge.options import option

if TYPE_CHECKING:
    from loopedge.data.tables.columns import Columns

__all__ = ["GapRule", "TimedRows", "dates_in_numbers", "name_gaps", "other_step", "split_at_gaps"]

GapRule = Literal["split", "cross", "refuse"]
"""What happens at a gap: no window crosses it, table rows are taken as equal steps, or it is an error."""
MOST_INSERTED = 10
"""Steps of a grid, for each row of the file, that are still proposed."""
NUMBERS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Formats of times without anything between their numbers, by how many digits they have."""
EPOCHS: dict[Literal["s", "ms", "us", "ns"], int] = {
    "s": 1,
    "ms": 10**3,
    "us": 10**6,
    "ns": 10**9,
}
EARLY, LATE = 631_152_000, 4_102_444_800
"""Seconds from 1970 to 1990 and to 2100: numbers between may be times."""
LEAST_STEPS = 3
"""Steps without a common length that are worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRows:
    """Table rows, series after series, with their times and their places in the file.

    Args:
        times: Of each.
        places: Of the rows of the file.
        order: int64 (table rows,): the number of each in the file; default: as they are.
        bounds: int64 (series + 1,): series i holds the table rows from ``bounds[i]`` to ``bounds[i + 1]``.
        series: Names of the series, where there are several.
    """

    times: Times
    places: Places
    order: Array | None
    bounds: Array
    series: tuple[str, ...]

    def in_file(self, row: int) -> int:
        """Return the number of a table row in its file, from 0."""
        return row if self.order is None else int(self.order[row])

    def where(self, row: int) -> str:
        """Return file, table row and column of a time, for the start of an error."""
        return f"{self.places.where(self.in_file(row))}, column {self.times.column!r}"

    def said(self, row: int) -> str:
        """Return the time and the place of a table row."""
        return (
            f"{self.times.text(row)!r}{self._as_epoch(row)} in {self.places.row(self.in_file(row))}"
        )

    def _as_epoch(self, row: int) -> str:
        """Return the date that a number is, where all of them look like seconds since 1970 or parts of them."""
        moments = self.times.moments
        if self.times.kind != "number" or moments.dtype.kind == "f":
            return ""
        for unit, per_second in EPOCHS.items():
            if moments.min() >= EARLY * per_second and moments.max() < LATE * per_second:
                return f" ({np.datetime64(int(moments[row]), unit).astype('datetime64[s]')}Z, if it is an epoch)"
        return ""

    def of_series(self, row: int) -> str:
        """Return whose table row it is, where there are several series."""
        if not self.series:
            return ""
        number = int(np.searchsorted(self.bounds, row, side="right")) - 1
        return f" of {self.series[number]!r}"

    def gap(self, row: int) -> str:
        """Return the two times between which others are missing, before a table row."""
        return f"between {self.said(row - 1)} and {self.said(row)}{self.of_series(row)}"


def name_gaps(rows: TimedRows, gaps: Array, lengths: Array) -> str:
    """Return the first and the longest gap.

    Args:
        rows: The table rows.
        gaps: int64 (gaps,): table rows before which others are missing, in the order of the rows.
        lengths: float64 (gaps,): how long each is.
    """
    first = int(gaps[np.argmin([rows.in_file(row) for row in gaps.tolist()])])
    longest = int(gaps[lengths.argmax()])
    if len(gaps) == 1:
        return rows.gap(first)
    if first == longest:
        return f"the first and longest {rows.gap(first)}"
    return f"the first {rows.gap(first)}, the longest {rows.gap(longest)}"


def split_at_gaps(
    columns: "Columns", rows: TimedRows, rule: GapRule, step: str | None = None
) -> tuple["Columns", Array | None]:
    """Find the step of the times, and keep apart what stands before and behind a gap.

    Args:
        columns: The table rows.
        rows: Their times.
        rule: What happens at a gap.
        step: Name of the frequency that is expected; default: found.

    Returns:
        The columns with times, pieces and findings; and float64 (table rows,), how far each table row is from the one
        before in steps, where that is known.

    Raises:
        InputError: There is a gap and ``rule`` refuses it.
    """
    written = dates_in_numbers(rows.times)
    if written is not None:
        dates = _say_dates(rows, written)
        return replace(columns, times=rows.times, findings=(*columns.findings, dates)), None
    steps = find_steps(rows.times, rows.bounds, _expected(rows.times, step))
    times = replace(rows.times, frequency=steps.frequency, typical=steps.typical)
    columns = replace(columns, times=times)
    found = _say_irregular(rows, steps)
    if found is not None and rule == "refuse":
        raise InputError(f"{rows.places.source}, {found.message}", hint=found.hint)
    if found is not None:
        return replace(columns, findings=(*columns.findings, found)), None
    gaps = steps.gaps
    if not len(gaps):
        return columns, None
    message = _gaps_message(rows, steps, gaps)
    hint = _split_hint(steps.frequency) + _zone_hint(rows, steps, gaps)
    if rule == "refuse":
        raise InputError(f"{rows.places.source}, {message}", hint=hint)
    if rule == "cross":
        said = Finding(kind="gap", message=f"{message}; rows are taken as steps there too")
        return replace(columns, findings=(*columns.findings, said)), None
    said = Finding(kind="gap", message=f"{message}; no window crosses a gap", hint=hint)
    pieces = np.union1d(rows.bounds, gaps).astype(np.int64)
    split = replace(columns, pieces=pieces, findings=(*columns.findings, said))
    lengths = np.ones(len(rows.times.moments))
    lengths[gaps] = steps.lengths
    return split, lengths


def other_step(source: str, times: Times | None, step: str | None) -> Finding | None:
    """Say that table rows follow each other by another step than those that a model was trained on.

    Args:
        source: Name of the file.
        times: Of its rows; None: it has none.
        step: Name of the frequency of training; None: there was none.
    """
    own = None if times is None else times.frequency
    if own is None or step is None or own.name == step:
        return None
    message = (
        f"the rows of {source} follow each other by {own.words}, those of training by {parse_frequency(step).words}: "
        "the model was not trained on such steps"
    )
    return Finding(kind="time", message=message)


def _expected(times: Times, step: str | None) -> Frequency | None:
    """Return the frequency of a name, where times are of its kind."""
    frequency = None if step is None else parse_frequency(step)
    if frequency is None or (frequency.unit == "number") != (times.kind == "number"):
        return None
    return frequency.on_day_of(times.grid(frequency)) if frequency.is_local else frequency


def _gaps_message(rows: TimedRows, steps: Steps, gaps: Array) -> str:
    number = "1 gap" if len(gaps) == 1 else f"{len(gaps):,} gaps"
    step = "" if steps.frequency is None else f" in steps of {steps.frequency.words}"
    return (
        f"column {rows.times.column!r} has {number}{step}: {name_gaps(rows, gaps, steps.lengths)}"
    )


def _split_hint(frequency: Frequency | None) -> str:
    cross = f"{option('gaps', 'cross')} takes rows as steps"
    if frequency is None:
        return cross
    grid = f"{frequency_option(frequency.name)} {option('missing', 'interpolate')}"
    return f"{grid} inserts the missing rows, {cross}"


def _say_irregular(rows: TimedRows, steps: Steps) -> Finding | None:
    """Say that no step holds for most of the table rows, and which option would make one."""
    if steps.are_regular or len(rows.times.moments) - len(rows.bounds) + 1 < LEAST_STEPS:
        return None
    lengths = np.diff(rows.times.moments).astype(np.float64)
    firsts = rows.bounds[1:-1]
    lengths[firsts[firsts > 0] - 1] = 0  # from one series to the next
    longest = int(lengths.argmax()) + 1
    message = (
        f"column {rows.times.column!r}: no step holds for {REGULAR:.0%} of the rows; rows are taken as equal steps, "
        f"and windows go across what may be missing: the longest step is {rows.gap(longest)}"
    )
    return Finding(kind="time", message=message, hint=_common_step(rows))


def _common_step(rows: TimedRows) -> str | None:
    """Return the options that put times on a grid on which all of them stand, where that is not far too fine."""
    times = rows.times
    if times.moments.dtype.kind == "f":
        return None
    steps = np.diff(times.moments)
    firsts = rows.bounds[1:-1] - 1
    inner = np.delete(steps, firsts[firsts >= 0])
    common = int(np.gcd.reduce(inner))
    if common < 1 or inner.sum() // common > MOST_INSERTED * len(times.moments):
        return None
    frequency = Frequency(unit="nanosecond", count=common)
    if times.kind == "number":
        frequency = Frequency(unit="number", count=common)
    elif common % DAY == 0:
        frequency = Frequency(unit="day", count=common // DAY)
    return f"{frequency_option(frequency.name)} {option('missing', 'indicator')} puts them on a grid of {frequency.words}"


def _zone_hint(rows: TimedRows, steps: Steps, gaps: Array) -> str:
    """Name the zone whose clocks skip what is missing in some gaps, where times say no zone."""
    frequency = steps.frequency
    if rows.times.kind != "date" or frequency is None or frequency.unit != "nanosecond":
        return ""
    before, behind = rows.times.moments[gaps - 1], rows.times.moments[gaps]
    hour = behind - before <= frequency.count + 2 * HOUR
    for name in ZONES if hour.any() else ():
        try:
            zone = Zone(name)
        except InputError:  # this machine does not know it
            continue
        steps_then = zone.instants(behind[hour]) - zone.instants(before[hour])
        count = int((steps_then == frequency.count).sum())
        if count:
            where = "it" if len(gaps) == 1 else f"{count:,} of them"
            return f"; {form_option('timezone', name)} would close {where}: its clocks are put forward there"
    return ""


def dates_in_numbers(times: Times) -> str | None:
    """Return how dates are written where all times are whole numbers such as 20240131; None: they are not."""
    if times.kind != "number" or times.moments.dtype.kind == "f" or len(times.moments) < 2:
        return None
    least, most = int(times.moments.min()), int(times.moments.max())
    for digits, time_format in NUMBERS.items():
        if least < 1900 * 10 ** (digits - 4) or most >= 2200 * 10 ** (digits - 4):
            continue
        months = times.moments // 10 ** (digits - 6)
        parts = [times.moments // 10**place % 100 for place in range(digits - 8, -1, -2)]
        fits = (months % 100 >= 1) & (months % 100 <= 12)
        for part, (low, high) in zip(parts, ((1, 31), (0, 23), (0, 59), (0, 59)), strict=False):
            fits &= (part >= low) & (part <= high)
        if fits.all():
            return time_format
    return None


def _say_dates(rows: TimedRows, time_format: str) -> Finding:
    message = (
        f"column {rows.times.column!r} holds numbers that look like dates, {rows.said(0)}; "
        "rows are taken as equal steps"
    )
    return Finding(
        kind="time", message=message, hint=f"{form_option('time_format', time_format)} reads dates"
    )
