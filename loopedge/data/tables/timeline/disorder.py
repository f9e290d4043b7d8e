"""Why the times of a table do not ascend: what people do to files, looked for one after the other."""

import shlex
from typing import TYPE_CHECKING

import numpy as np

from loopedge.data.tables.timeline.zones import DAY, Zone
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option
from loopedge.options import option, option_name

if TYPE_CHECKING:
    from loopedge.data.tables.reading import Table
    from loopedge.data.tables.timeline.order import OtherColumns, TimeOrder

__all__ = ["ZONES", "explain_disorder", "fold_hours", "zones_that_fit"]

ZONES = (
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York", "America/Chicago"),
    *("America/Los_Angeles", "Australia/Sydney", "Australia/Lord_Howe", "Pacific/Auckland"),
    *(
        "America/Santiago",
        "America/Sao_Paulo",
        "Asia/Jerusalem",
        "Asia/Tehran",
        "Africa/Casablanca",
    ),
)
"""Zones whose clocks change by different rules, one for each rule that much data is of."""
LEAST_BACKWARDS = 3
"""Table rows that say that a file runs backwards."""
BACKWARDS = 0.99
"""Share of the steps that go back then: where clocks are put back, one goes on."""
LOOKED_AT = 4096
"""Table rows on which a column must tell series apart before all are looked at."""
SHARED = 0.1
"""Share of the table rows whose time another one has too, where several series stand among each other."""
MOST_SEARCHED = 64
"""Columns that are looked at on the first table rows."""
MOST_COLUMNS = 8
"""Columns that are looked at on all table rows."""


def explain_disorder(table: "Table", order: "TimeOrder", others: "OtherColumns") -> InputError:
    """Return the error of a table whose times do not ascend.

    Args:
        table: As read.
        order: Its times; a step is not above 0.
        others: Its columns that were not read.
    """
    said = _Said(table, order)
    for explain in (_newest_first, _clocks_put_back, _several_series, _repeated):
        error = explain(said, others)
        if error is not None:
            return error
    count = int((order.steps <= 0).sum())
    more = f" ({count:,} rows are)" if count > 1 else ""
    return InputError(f"{said.earlier}{more}", hint=said.sort)


class _Said:
    """A table with times that do not ascend, and the words for its first wrong table row."""

    def __init__(self, table: "Table", order: "TimeOrder") -> None:
        assert table.times is not None
        self.table, self.order = table, order
        self.times, self.places = table.times, table.places
        self.wrong = order.steps <= 0
        places = np.flatnonzero(self.wrong)
        self.at = int(places[order.rows[places].argmin()])
        """Place in the order of the wrong row that stands first in the file."""
        self.column = self.times.column
        self.sort = f"sort the rows by {self.column!r}, oldest first"

    def row(self, place: int) -> int:
        """Return the number in the file of a place in the order."""
        return int(self.order.rows[place])

    @property
    def of(self) -> str:
        """Whose table rows they are, where there are several series."""
        groups = self.table.groups
        return "" if groups is None else f" of {groups.names[int(self.order.series[self.at])]!r}"

    @property
    def where(self) -> str:
        return f"{self.places.where(self.row(self.at))}, column {self.column!r}"

    def text(self, place: int) -> str:
        return repr(self.times.text(self.row(place)))

    @property
    def earlier(self) -> str:
        """Say that the first wrong row is not later than the one before it."""
        if self.order.steps[self.at] == 0:
            return (
                f"{self.where}: {self.text(self.at)} stands twice, also in the row before{self.of}"
            )
        before = self.text(self.at - 1)
        return f"{self.where}: {self.text(self.at)} is earlier than {before} in the row before{self.of}"


def _newest_first(said: _Said, others: "OtherColumns") -> InputError | None:
    """Every step of every series goes back."""
    steps = said.order.steps[said.order.inner]
    if len(steps) < LEAST_BACKWARDS - 1 or (steps < 0).mean() < BACKWARDS:
        return None
    what = "the rows run" if said.table.groups is None else "the rows of every series run"
    hint = said.sort
    if others.path.name.lower().endswith(".csv") and said.places.is_plain:
        path = shlex.quote(str(others.path))
        # awk ends the last line, else tac would join it with the line before.
        turned = f"tail -n +2 {path} | awk 1 | tac"
        hint = f"turn them round: (head -n 1 {path}; {turned}) > oldest-first.csv"
    return InputError(f"{said.earlier}: {what} from newest to oldest", hint=hint)


def fold_hours(zone: Zone, order: "TimeOrder") -> tuple[Array, Array]:
    """Return the instants of local times; of an hour that stands twice, the second is the later one.

    Args:
        zone: Whose clocks show the times.
        order: The times, as numbers of what clocks show.

    Returns:
        int64 (table rows,) instants in the order's order, and bool: whether clocks show the time at all.
    """
    early, late, shown = zone.candidates(order.moments)
    instants = early.copy()
    inner = order.inner
    for place in np.flatnonzero(late > early).tolist():
        if inner[place] and instants[place] <= instants[place - 1]:
            instants[place] = late[place]
    return instants, shown


def zones_that_fit(order: "TimeOrder") -> list[str]:
    """Return zones in which the local times of an order ascend, as those of some others do not."""
    fitting = []
    for name in ZONES:
        try:
            zone = Zone(name)
        except InputError:  # this machine does not know it
            continue
        instants, shown = fold_hours(zone, order)
        steps = np.diff(instants)[order.inner[1:]]
        if shown.all() and (steps > 0).all():
            fitting.append(name)
    return fitting


def _clocks_put_back(said: _Said, others: "OtherColumns") -> InputError | None:
    """Where a step goes back, clocks of a zone are put back then."""
    if said.times.kind != "date" or said.wrong.sum() > said.order.inner.sum() // 2:
        return None
    back = said.order.moments[said.at - 1] - said.order.moments[said.at]
    fitting = zones_that_fit(said.order) if back < DAY // 8 else []
    if not fitting:
        return None
    others_fit = f", and those of {', '.join(fitting[1:])}," if len(fitting) > 1 else ""
    return InputError(
        f"{said.earlier}: the clocks of {fitting[0]}{others_fit} are put back in that night",
        hint=f"{form_option('timezone', fitting[0])}, if the times are of that zone",
    )


def _several_series(said: _Said, others: "OtherColumns") -> InputError | None:
    """A column with few values tells series apart whose times ascend."""
    groups = said.table.groups
    found = _dividing_column(said, others)
    if found is None:
        return None
    name, count = found
    if groups is None:
        return InputError(
            f"{said.earlier}: column {name!r} tells {count:,} series apart, and the times of each ascend",
            hint=option("group", name),
        )
    return InputError(
        f"{said.earlier}: column {name!r} tells {count:,} series apart within those of {option_name('group')}",
        hint=f"write that column and the present one into one, and name it with {option_name('group')}",
    )


def _dividing_column(said: _Said, others: "OtherColumns") -> tuple[str, int] | None:
    """Return the column of fewest values within each of which times ascend, and how many series it makes."""
    used = {*said.table.names, said.column}
    groups = said.table.groups
    moments = said.times.moments
    shared = 1 - len(np.unique(said.order.moments)) / len(moments)
    if groups is not None:
        pairs = np.stack([groups.codes.astype(np.float64), moments.astype(np.float64)])
        shared = 1 - np.unique(pairs, axis=1).shape[1] / len(moments)
    candidates = []
    for name in others.names()[:MOST_SEARCHED]:
        if not name or name in used or list(others.names()).count(name) > 1:
            continue
        codes = others.codes(name, rows=LOOKED_AT)
        if codes is None:
            continue
        head = len(codes)
        known = None if groups is None else groups.codes[:head]
        if _ascends(moments[:head], _together(known, codes)):
            candidates.append((int(codes.max(initial=0)), name))
    found = []
    for _, name in sorted(candidates)[:MOST_COLUMNS]:
        codes = others.codes(name)
        if codes is None or len(codes) != len(moments):
            continue
        series = _together(None if groups is None else groups.codes, codes)
        count = len(np.unique(series))
        runs = 1 + int((np.diff(series) != 0).sum())
        if (runs == count or shared >= SHARED) and _ascends(moments, series):
            found.append((count, name))
    if not found:
        return None
    count, name = min(found)
    return name, count


def _together(groups: Array | None, codes: Array) -> Array:
    """Return the number of each pair of a group and a code."""
    if groups is None:
        return codes
    return groups.astype(np.int64) * (int(codes.max(initial=0)) + 1) + codes


def _ascends(moments: Array, series: Array) -> bool:
    order = np.argsort(series, kind="stable")
    same = np.diff(series[order]) == 0
    return bool((np.diff(moments[order])[same] > 0).all())


def _repeated(said: _Said, others: "OtherColumns") -> InputError | None:
    """The times of the first wrong table row, and of those behind it, stand before it already."""
    order, at = said.order, said.at
    first = at - int(np.argmin(order.inner[: at + 1][::-1]))
    before = order.moments[first:at]
    start = first + int(np.searchsorted(before, order.moments[at]))
    if start == at or order.moments[start] != order.moments[at]:
        return None
    length = 1
    last = int(np.searchsorted(order.series, order.series[at], side="right"))
    while (
        at + length < last
        and start + length < at
        and order.moments[at + length] == order.moments[start + length]
    ):
        length += 1
    values = said.table.values
    one, other = (order.rows[place : place + length] for place in (start, at))
    equal = not values.size or np.array_equal(values[one], values[other], equal_nan=True)
    labels = said.table.labels
    equal = equal and (labels is None or bool((labels.codes[one] == labels.codes[other]).all()))
    count = int(said.wrong.sum())
    if length == 1:
        what = (
            said.earlier
            if start == at - 1
            else (
                f"{said.where}: {said.text(at)} stands twice, also in {said.places.row(said.row(start))}{said.of}"
            )
        )
        more = f" ({count:,} rows repeat a time or go back)" if count > 1 else ""
        return InputError(
            f"{what}, {'with the same values' if equal else 'with other values'}{more}",
            hint="leave out one of the two" if equal else "leave out the one that does not hold",
        )
    ends = said.places.row(said.row(at + length - 1))
    message = (
        f"{said.where}: {said.text(at)} is earlier than {said.text(at - 1)} in the row before{said.of}: "
        f"from there to {ends} the times of {length:,} rows stand twice, also from {said.places.row(said.row(start))} on, "
        f"with {'the same values' if equal else 'other values'}"
    )
    return InputError(
        message,
        hint=f"leave out {'one of the two copies' if equal else 'the one that does not hold'}",
    )
