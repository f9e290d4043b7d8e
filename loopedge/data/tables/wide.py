"""Tables that have a column a time instead of a table row a time."""

import contextlib
import itertools
import re
from collections.abc import Sequence
from datetime import datetime

from loopedge.data.tables.findings import Finding

__all__ = ["time_names", "wide_finding", "wide_hint"]

FEWEST = 3
"""Names that follow each other from which on they are a series."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
COUNTED = re.compile(
    r"(t|h|d|w|m|q|y|x|step|time|hour|hr|day|week|wk|month|quarter|year|fy|period)[ _-]?(\d+)",
    re.IGNORECASE,
)
"""A word for a time, and its number."""
YEAR = re.compile(r"(1[89]|20|21)\d\d")
CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")
MONTH = re.compile(r"\d{4}[-/.]?\d{2}")


def time_names(header: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns that are times, if the table is wide: at least three that follow each other.

    Years, months, days of the week, dates, times of the day, and words for times that are numbered, as t1 to t24.
    At least half of the columns must be such ones.
    """
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in header:
        for kind, place in _places(name.strip()):
            kinds.setdefault(kind, []).append((place, name))
    found = max(kinds.values(), key=len, default=[])
    places = [place for place, _ in found]
    if len(found) < FEWEST or 2 * len(found) < len(header):
        return ()
    if not all(before < after for before, after in itertools.pairwise(places)):
        return ()
    return tuple(name for _, name in found)


def wide_hint(header: Sequence[str]) -> str | None:
    """Return how a wide table is made long; None where it is not wide."""
    names = time_names(header)
    if not names:
        return None
    return f"the table is wide, {names[0]} to {names[-1]} are times; {_melting(header, names)}"


def wide_finding(header: Sequence[str], used: Sequence[str]) -> tuple[Finding, ...]:
    """Return what a person should know who forecasts a column of a wide table."""
    names = time_names(header)
    if not set(names) & set(used):
        return ()
    message = (
        f"the table seems to be wide: its columns {names[0]} to {names[-1]} ({len(names)}) are times, "
        "and a window goes over table rows"
    )
    return (Finding(kind="shape", message=message, hint=_melting(header, names)),)


def _melting(header: Sequence[str], names: Sequence[str]) -> str:
    others = [name for name in header if name not in names]
    melt = f"melt(id_vars={others!r}, var_name='time', value_name='value')"
    return f"make one table row a time of it: pandas.DataFrame.{melt}"


def _places(name: str) -> list[tuple[str, int]]:
    """Return what kinds of time a name may be, and where it stands among those."""
    lower = name.casefold()
    found = []
    if YEAR.fullmatch(name):
        found.append(("year", int(name)))
    if lower[:3] in MONTHS and lower.isalpha():
        found.append(("month", MONTHS.index(lower[:3])))
    if lower[:3] in DAYS and lower.isalpha():
        found.append(("weekday", DAYS.index(lower[:3])))
    if name.isascii() and name.isdigit() and not YEAR.fullmatch(name):
        found.append(("number", int(name)))
    counted = COUNTED.fullmatch(name)
    if counted:
        found.append((counted[1].casefold(), int(counted[2])))
    if CLOCK.fullmatch(name):
        hours, minutes, *seconds = map(int, name.split(":"))
        found.append(("clock", (hours * 60 + minutes) * 60 + sum(seconds)))
    if MONTH.fullmatch(name):
        digits = re.sub(r"\D", "", name)
        found.append(("year and month", int(digits)))
    with contextlib.suppress(ValueError):
        found.append(("date", datetime.fromisoformat(name).toordinal()))
    return found
