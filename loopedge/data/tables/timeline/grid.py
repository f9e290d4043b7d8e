"""Series on a grid of times: a table row for each time of a frequency, its values missing where the file has none."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.data.tables.timeline.frequency import (
    AUTO,
    Frequency,
    frequency_option,
    parse_frequency,
)
from loopedge.data.tables.timeline.gaps import TimedRows, name_gaps
from loopedge.data.tables.timeline.steps import REGULAR, find_steps
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option
from loopedge.options import option, option_name

if TYPE_CHECKING:
    from loopedge.data.tables.columns import Columns

__all__ = ["put_on_grid"]

MOST_ROWS = 10
"""Rows of a grid, for each row of the file, that are still made."""
FEW_ROWS = 10_000
"""Rows of a grid that are always made."""


def put_on_grid(columns: "Columns", rows: TimedRows, wanted: str, *, refuse: bool) -> "Columns":
    """Insert a table row for each time of a frequency that a series lacks between its first and its last.

    Args:
        columns: The table rows.
        rows: Their times.
        wanted: Name of the frequency, or `AUTO`.
        refuse: Missing values are refused.

    Returns:
        The columns with times of that frequency; what was inserted is not observed.

    Raises:
        InputError: There is no such frequency, a time is off its grid, rows are missing and shall not be, or there
            would be too many.
    """
    frequency = _choose(rows, wanted)
    places = _places(rows, frequency)
    bounds, firsts = rows.bounds, rows.bounds[:-1]
    sizes = np.array(
        [
            places[end - 1] + 1 if end > first else 0
            for first, end in zip(firsts, bounds[1:], strict=True)
        ],
        np.int64,
    )
    times = replace(rows.times, frequency=frequency)
    if int(sizes.sum()) == len(places):
        return replace(columns, times=times)
    _check_size(rows, frequency, int(sizes.sum()))
    message = _inserted_message(rows, frequency, places)
    if refuse:
        raise InputError(
            f"{rows.places.source}, {message}",
            hint=f"add {option('missing', 'interpolate')} to fill them along a straight line, or {option('missing', 'indicator')}",
        )
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    targets = places + np.repeat(edges[:-1], np.diff(bounds))
    whole = rows.times.moments.dtype.kind != "f" and frequency.count == int(frequency.count)
    moments = np.empty(int(edges[-1]), np.int64 if whole else np.float64)
    for first, begin, end in zip(
        firsts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
    ):
        if end > begin:
            moments[begin:end] = _grid(rows, frequency, first, end - begin)
    moments[targets] = rows.times.moments
    found = Finding(kind="gap", message=f"{message}; they are inserted, without values")
    return replace(
        columns,
        values=_spread(columns.values, targets, len(moments), np.nan),
        observed=_spread(columns.observed, targets, len(moments), False),
        codes=None if columns.codes is None else _spread(columns.codes, targets, len(moments), -1),
        edges=None if columns.edges is None else edges,
        times=replace(times, moments=moments),
        findings=(*columns.findings, found),
    )


def _choose(rows: TimedRows, wanted: str) -> Frequency:
    """Return the frequency of a name; the name must fit the kind of the times."""
    times = rows.times
    where = f"{rows.places.source}, column {times.column!r}"
    if wanted == AUTO:
        steps = find_steps(times, rows.bounds)
        if steps.frequency is None:
            raise InputError(
                f"{where}: no step holds for {REGULAR:.0%} of the rows, so {frequency_option(AUTO)} finds none",
                hint=f"name it: {frequency_option('900' if times.kind == 'number' else '15min')}",
            )
        return steps.frequency
    frequency = parse_frequency(wanted)
    if (frequency.unit == "number") != (times.kind == "number"):
        numbers = times.kind == "number"
        raise InputError(
            f"{where}: {option_name('frequency')} {wanted} is of {'dates' if numbers else 'numbers'}, "
            f"the times are {'numbers' if numbers else 'dates'}",
            hint=frequency_option(AUTO),
        )
    return frequency.on_day_of(times.grid(frequency)) if frequency.is_local else frequency


def _places(rows: TimedRows, frequency: Frequency) -> Array:
    """Return the place of each table row on the grid of its series, int64, 0 for the first."""
    times = rows.times.grid(frequency)
    places = np.zeros(len(times), np.int64)
    exact = np.ones(len(times), bool)
    for first, end in zip(rows.bounds[:-1].tolist(), rows.bounds[1:].tolist(), strict=True):
        if end > first:
            places[first:end], exact[first:end] = frequency.places(
                times[first:end], times[first].item()
            )
    exact |= _skipped(rows, frequency, places, exact)
    if exact.all():
        return places
    row = int(np.argmin(exact))
    first = int(rows.bounds[np.searchsorted(rows.bounds, row, side="right") - 1])
    count = int((~exact).sum())
    more = f" ({count:,} times are)" if count > 1 else ""
    said = f"{rows.where(row)}: {rows.times.text(row)!r} is off the grid of {frequency_option(frequency.name)}"
    begins = "" if row == first else f" that begins with {rows.said(first)}{rows.of_series(row)}"
    raise InputError(f"{said}{begins}{more}", hint=_off_grid_hint(rows, frequency))


def _skipped(rows: TimedRows, frequency: Frequency, places: Array, exact: Array) -> Array:
    """Return which times are off the grid because clocks skip the time that is on it: a day begins at one o'clock then."""
    moments = rows.times.moments
    found = np.zeros(len(moments), bool)
    if not frequency.is_local or rows.times.zone is None:
        return found
    firsts = rows.bounds[np.searchsorted(rows.bounds, np.arange(len(moments)), side="right") - 1]
    for row in np.flatnonzero(~exact).tolist():
        start = int(rows.times.clock(moments[firsts[row] : firsts[row] + 1])[0])
        meant = rows.times.from_clock(frequency.at(start, places[row : row + 1]))
        found[row] = meant[0] == moments[row]
    return found


def _off_grid_hint(rows: TimedRows, frequency: Frequency) -> str:
    if frequency.is_local and rows.times.kind == "instant" and rows.times.zone is None:
        return f"{form_option('timezone', 'Europe/Berlin')} counts days on the clocks of a zone"
    found = find_steps(rows.times, rows.bounds).frequency
    if found is not None and found != frequency:
        return f"most steps are {frequency_option(found.name)}"
    return f"round the times in the file, or leave out {option_name('frequency')}"


def _check_size(rows: TimedRows, frequency: Frequency, size: int) -> None:
    known = len(rows.times.moments)
    if size <= max(FEW_ROWS, MOST_ROWS * known):
        return
    found = find_steps(rows.times, rows.bounds).frequency
    raise InputError(
        f"{rows.places.source}: {frequency_option(frequency.name)} makes {size:,} rows of {known:,}, "
        f"at most {MOST_ROWS} times as many are made",
        hint=frequency_option(AUTO if found is None else found.name),
    )


def _inserted_message(rows: TimedRows, frequency: Frequency, places: Array) -> str:
    missing = np.diff(places, prepend=0) - 1
    missing[rows.bounds[:-1][rows.bounds[:-1] < len(places)]] = 0
    gaps = np.flatnonzero(missing > 0)
    count = int(missing[gaps].sum())
    number = "1 gap" if len(gaps) == 1 else f"{len(gaps):,} gaps"
    lack = "1 row is missing" if count == 1 else f"{count:,} rows are missing"
    return (
        f"column {rows.times.column!r}: {lack} at {frequency_option(frequency.name)}, in {number}: "
        f"{name_gaps(rows, gaps, missing[gaps])}"
    )


def _grid(rows: TimedRows, frequency: Frequency, first: int, count: int) -> Array:
    start = rows.times.moments[first : first + 1]
    if not frequency.is_local:
        return frequency.at(start[0].item(), np.arange(count))
    shown = frequency.at(rows.times.clock(start)[0].item(), np.arange(count))
    return rows.times.from_clock(shown)


def _spread(values: Array, targets: Array, rows: int, absent: float) -> Array:
    spread = np.full((rows, *values.shape[1:]), absent, values.dtype)
    spread[targets] = values
    return spread
