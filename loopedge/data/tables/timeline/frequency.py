"""Frequencies of times: their names, the place of a time on their grid, and the times at places."""

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loopedge.data.tables.timeline.zones import DAY, SECOND
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import by_face, option_name

__all__ = ["AUTO", "Frequency", "frequency_option", "parse_frequency"]

AUTO = "auto"
"""The frequency that is found in the times."""
Unit = Literal["number", "nanosecond", "day", "weekday", "month"]
UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
}
DAYS = {"D": 1, "W": 7}
MONTHS = {"M": 1, "Q": 3, "Y": 12}
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY, WORKING_DAYS = "1111111", "1111100"
OLDER = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "A": "Y", "AS": "YS", "AE": "YE"}
"""Names of before pandas 2.2."""
NAME = re.compile(r"(\d*)([A-Za-z]+)")
WORDS = (
    "15min, h, D, B (Monday to Friday), W, MS, ME, QS, QE, YS, YE, a number where times are numbers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """Steps from time to time: of equal length, or by the calendar.

    Args:
        unit: What is counted.
        count: How many of them a step is; nanoseconds, days or months are whole.
        day: Of calendar months: day of the month; a shorter month's last day stands in, so that 31 is the end.
            None: that of the first time.
        weekmask: Of days of the week: which count, from Monday, as `numpy.busday_count` takes them.
    """

    unit: Unit
    count: int | float = 1
    day: int | None = None
    weekmask: str = EVERY_DAY

    @property
    def is_local(self) -> bool:
        """Whether it counts days of the calendar: of what clocks show, not of instants."""
        return self.unit in ("day", "weekday", "month")

    @property
    def name(self) -> str:
        """Its name, as `parse_frequency` reads it."""
        if self.unit == "number":
            return str(int(self.count)) if self.count == int(self.count) else repr(self.count)
        if self.unit == "weekday":
            return "B" if self.weekmask == WORKING_DAYS else _week_name(self.weekmask)
        count, letters = int(self.count), "ns"
        if self.unit == "month":
            letters = next(letters for letters in "YQM" if count % MONTHS[letters] == 0)
            count //= MONTHS[letters]
            letters += {1: "S", 31: "E"}.get(self.day or 0, "")
        elif self.unit == "day":
            letters = "W" if count == 7 else "D"
            count = 1 if count == 7 else count
        else:
            letters = next(name for name in reversed(UNITS) if count % UNITS[name] == 0)
            count //= UNITS[letters]
        return letters if count == 1 else f"{count}{letters}"

    @property
    def words(self) -> str:
        """One step of it, for people."""
        count = int(self.count)
        if self.unit == "number":
            return self.name
        if self.unit == "weekday":
            return "1 working day" if self.weekmask == WORKING_DAYS else f"1 day of {self.name}"
        if self.unit == "month":
            return _counted(count // 12, "year") if count % 12 == 0 else _counted(count, "month")
        if self.unit == "day":
            return _counted(count // 7, "week") if count == 7 else _counted(count, "day")
        return _span_words(count)

    def places(self, times: Array, start: float) -> tuple[Array, Array]:
        """Return how many steps after a start times stand, and whether they stand on the grid.

        Args:
            times: Of one series: numbers; instants, or where `is_local` what clocks show, in nanoseconds.
            start: The grid's first time.

        Returns:
            int64 (times,) and bool (times,).
        """
        if self.unit == "number":
            exact_steps = (times - start) / self.count
            whole = np.rint(exact_steps)
            return whole.astype(np.int64), np.abs(exact_steps - whole) <= _slack(times, self.count)
        if self.unit == "weekday":
            days, clock = np.divmod(times, DAY)
            first, first_clock = divmod(int(start), DAY)
            whole = np.busday_count(_dates(np.int64(first)), _dates(days), weekmask=self.weekmask)
            on_day = np.is_busday(_dates(days), weekmask=self.weekmask)
            return whole.astype(np.int64), on_day & (clock == first_clock)
        if self.unit == "month":
            whole = (_months(times) - _months(np.array([start]))) // int(self.count)
            return whole, self.at(start, whole) == times
        step = int(self.count) * (DAY if self.unit == "day" else 1)
        whole, rest = np.divmod(times - int(start), step)
        return whole, rest == 0

    def at(self, start: float, places: Array) -> Array:
        """Return the times at places after a start, which is itself on the grid or just before it."""
        if self.unit == "number":
            return np.asarray(start + places * self.count)
        first, clock = divmod(int(start), DAY)
        if self.unit == "weekday":
            days = np.busday_offset(
                _dates(np.int64(first)), places, roll="forward", weekmask=self.weekmask
            )
            shifted: Array = days.astype(np.int64) * DAY + clock
            return shifted
        if self.unit == "month":
            months = _months(np.array([start])) + places * int(self.count)
            begins = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
            ends = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
            day = self.day or _day_of_month(np.array([start]))[0]
            return np.asarray((begins + np.minimum(ends - begins, day) - 1) * DAY + clock)
        return np.asarray(
            int(start) + places * (int(self.count) * (DAY if self.unit == "day" else 1))
        )

    def lengths(self, times: Array) -> Array:
        """Return each step from time to time, in units of the frequency: float64 (times - 1,)."""
        if len(times) < 2:
            return np.empty(0)
        if self.unit not in ("weekday", "month"):
            step = self.count * (DAY if self.unit == "day" else 1)
            return np.asarray(np.diff(times) / step)
        whole, exact = self.places(times, times[0])
        if self.unit == "weekday":
            clock = np.mod(times, DAY)
            fine = whole + np.where(exact, 0, clock / DAY)
        else:
            months = _months(times)
            begins = months.astype("datetime64[M]").astype("datetime64[ns]").astype(np.int64)
            fine = (months + (times - begins) / (31 * DAY)) / self.count
        steps = np.where(exact[1:] & exact[:-1], np.diff(whole), np.diff(fine))
        return np.asarray(steps, np.float64)

    def on_day_of(self, local: Array) -> "Frequency":
        """Return it with the day of the month that times have, where none is said."""
        if self.unit != "month" or self.day is not None or not len(local):
            return self
        return replace(self, day=int(_day_of_month(local).max()))


def frequency_option(name: str) -> str:
    """Return the option that asks for a frequency, as it is written."""
    return by_face(f"--frequency {name}", f'frequency="{name}"')


def parse_frequency(text: str) -> Frequency:
    """Return the frequency of a name like those of pandas.

    Raises:
        InputError: No frequency is called so; the message says which there are.
    """
    name = text.strip()
    found = _number(name) or _weekdays(name) or _named(name)
    if found is None:
        raise InputError(
            f"{option_name('frequency')} {text!r} is not known; there are {AUTO}, {WORDS}",
            hint=frequency_option(AUTO),
        )
    return found


def _number(name: str) -> Frequency | None:
    try:
        count = int(name) if name.isdigit() else float(name)
    except ValueError:
        return None
    if not 0 < count < float("inf"):
        return None
    return Frequency(unit="number", count=count)


def _named(name: str) -> Frequency | None:
    found = NAME.fullmatch(name)
    if found is None:
        return None
    count, letters = int(found[1] or 1), OLDER.get(found[2], found[2])
    if not 0 < count < 10**9:
        return None
    if letters in UNITS:
        return Frequency(unit="nanosecond", count=count * UNITS[letters])
    if letters in DAYS:
        return Frequency(unit="day", count=count * DAYS[letters])
    if letters == "B" and count == 1:
        return Frequency(unit="weekday", weekmask=WORKING_DAYS)
    if letters[0] in MONTHS and letters[1:] in ("", "S", "E"):
        day = {"": None, "S": 1, "E": 31}[letters[1:]]
        return Frequency(unit="month", count=count * MONTHS[letters[0]], day=day)
    return None


def _weekdays(name: str) -> Frequency | None:
    """Read ``Mon-Sat`` and ``Mon,Wed,Fri``."""
    chosen: set[int] = set()
    for part in name.title().split(","):
        days = [WEEK.index(day) for day in part.split("-") if day in WEEK]
        if len(days) != len(part.split("-")) or len(days) > 2:
            return None
        span = (days[-1] - days[0]) % 7
        chosen |= {(days[0] + each) % 7 for each in range(span + 1)}
    return Frequency(unit="weekday", weekmask="".join("01"[day in chosen] for day in range(7)))


def _week_name(weekmask: str) -> str:
    days = [day for day in range(7) if weekmask[day] == "1"]
    for first in days:
        run = [(first + each) % 7 for each in range(len(days))]
        if len(days) > 2 and set(run) == set(days):
            return f"{WEEK[run[0]]}-{WEEK[run[-1]]}"
    return ",".join(WEEK[day] for day in days)


def _dates(days: Array | np.int64) -> Array:
    return np.asarray(days, np.int64).astype("datetime64[D]")


def _months(times: Array) -> Array:
    """Return months since 1970."""
    days = np.floor_divide(times, DAY).astype(np.int64)
    months: Array = _dates(days).astype("datetime64[M]").astype(np.int64)
    return months


def _day_of_month(times: Array) -> Array:
    days = np.floor_divide(times, DAY).astype(np.int64)
    begins = _months(times).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return np.asarray(days - begins + 1)


def _slack(times: Array, step: float) -> float:
    """Return how much of a step a number may be off its place by rounding alone."""
    if times.dtype.kind != "f":
        return 0.0 if float(step).is_integer() else 1e-9
    size = float(np.abs(times).max(initial=0.0))
    return min(0.25, 1e-6 + 4 * float(np.finfo(np.float64).eps) * size / step)


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count:,} {unit}s"


def _span_words(nanoseconds: int) -> str:
    for unit, size in (
        ("day", DAY),
        ("hour", UNITS["h"]),
        ("minute", UNITS["min"]),
        ("second", SECOND),
    ):
        if nanoseconds % size == 0:
            return _counted(nanoseconds // size, unit)
    return f"{nanoseconds / SECOND:g} s"
