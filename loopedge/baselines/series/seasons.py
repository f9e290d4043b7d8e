"""The seasons that a table may have: the one that was found, and those of the calendar by its time step."""

from dataclasses import dataclass

import numpy as np

from loopedge.data.tables.timeline.zones import DAY, HOUR
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array

__all__ = ["Season", "places_of_rows", "seasons_of"]

YEAR = 365.2425
"""Days."""
NEARBY = 0.025
"""A season that was found is one of the calendar's where it is off by no more than this share."""
CALENDAR = (
    (7, "a week of days"),
    (12, "a year of months"),
    (24, "a day of hours"),
    (48, "a day of half hours"),
    (52, "a year of weeks"),
    (96, "a day of quarters of an hour"),
    (144, "a day of ten minutes"),
    (168, "a week of hours"),
    (288, "a day of five minutes"),
    (365, "a year of days"),
    (1440, "a day of minutes"),
    (8766, "a year of hours"),
)
"""Table rows, where the time step is not known: those near a season that was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """A season that a baseline may take.

    Args:
        period: In steps, not whole where the calendar's is not.
        words: What it is in the calendar; empty where it is none of it.
    """

    period: float
    words: str = ""

    @property
    def rows(self) -> int:
        """The period in whole table rows."""
        return round(self.period)

    def text(self, found: int | None) -> str:
        """Say it, and where it was found instead."""
        of = f" ({self.words})" if self.words else ""
        other = found is not None and found != self.rows and _is_near(found, self.rows)
        return f"season {self.rows}{of}{f' found at {found}' if other else ''}"


def seasons_of(task: SeriesTask) -> list[Season]:
    """Return the seasons that are tried: those of the calendar first, then the one that was found.

    One that was asked for is the only one.
    """
    if task.given_season is not None:
        return [_named(task, task.given_season)]
    seasons = _by_step(task)
    if seasons is None:
        seasons = [] if task.season is None else _near(task.season)
    found = task.season
    if found is not None and all(found != season.rows for season in seasons):
        near = [season for season in seasons if _is_near(found, season.rows)]
        words = f"found in the training rows, near {near[0].rows}, {near[0].words}" if near else ""
        seasons.append(Season(period=found, words=words))
    return seasons


def _named(task: SeriesTask, rows: int) -> Season:
    known = _by_step(task) or _near(rows)
    return next((season for season in known if season.rows == rows), Season(period=rows))


def _near(found: int) -> list[Season]:
    return [
        Season(period=YEAR if rows == 365 else rows, words=words)
        for rows, words in CALENDAR
        if _is_near(found, rows)
    ]


def _is_near(found: int, rows: int) -> bool:
    return abs(found - rows) <= NEARBY * rows


def _by_step(task: SeriesTask) -> list[Season] | None:
    """Return the calendar's seasons by the step of the times; None where it is not known."""
    times = task.columns.times
    if times is None or times.kind == "number":
        return None
    frequency, periods = times.frequency, []
    if frequency is None:
        if times.typical is None:
            return None
        periods = _of_length(float(times.typical))
    elif frequency.unit == "month":
        periods = [(12 / frequency.count, "a year")]
    elif frequency.unit == "weekday":
        days = frequency.weekmask.count("1")
        periods = [(float(days), "a week"), (days * YEAR / 7, "a year")]
    elif frequency.unit == "number":
        return None
    else:
        unit = DAY if frequency.unit == "day" else 1
        periods = _of_length(frequency.count * unit)
    return [Season(period=period, words=words) for period, words in periods if period >= 1.999]


def _of_length(step: float) -> list[tuple[float, str]]:
    """Return the calendar's periods in steps of so many nanoseconds."""
    spans = ((HOUR, "an hour"), (DAY, "a day"), (7 * DAY, "a week"), (YEAR * DAY, "a year"))
    return [(span / step, words) for span, words in spans]


def places_of_rows(task: SeriesTask) -> Array:
    """Return where each table row stands in time, in steps: float64 (table rows,).

    By its time where the times have a step; else by its number in its series.
    """
    columns, times = task.columns, task.columns.times
    rows = np.arange(len(columns.values))
    if times is not None and times.frequency is not None:
        grid = times.grid(times.frequency)
        whole, _ = times.frequency.places(grid, float(grid.min()))
        return whole.astype(np.float64)
    if times is not None and times.typical:
        moments = times.moments
        return np.asarray((moments - moments.min()) / float(times.typical), np.float64)
    return (rows - columns.first_rows(rows)).astype(np.float64)
