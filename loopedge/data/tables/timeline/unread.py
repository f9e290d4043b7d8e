"""A column of times that is not named: what is lost without it, from a look at the first table rows."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from loopedge.data.tables.chunks import Chunk, Selection
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.texts import Encoder
from loopedge.data.tables.timeline.gaps import dates_in_numbers
from loopedge.data.tables.timeline.order import TimeOrder
from loopedge.data.tables.timeline.places import Places
from loopedge.data.tables.timeline.timestamps import TimeReader
from loopedge.data.tables.times import Times
from loopedge.errors import InputError
from loopedge.options import option, option_name

__all__ = ["unread_times"]

FIRST_COLUMNS = 4
"""Columns that are looked at, whatever they are called."""
NAMES = ("date", "datum", "day", "fecha", "hour", "jour", "month", "stamp", "time", "tag", "zeit")
"""What the names of other columns hold that are looked at."""
MOST_COLUMNS = 8


def unread_times(
    header: Sequence[str],
    selection: Selection,
    form: TableFormat,
    read: Callable[[Selection], Iterator[Chunk]],
) -> tuple[Finding, ...]:
    """Say which column holds dates that nothing reads, and whether they ascend in the first table rows.

    Numbers are left alone: they may be anything.

    Args:
        header: The columns.
        selection: What is read.
        form: How the table is written down.
        read: Reads other columns; no more than the first table rows are taken.
    """
    others = [name for name in header if name and name not in selection.all]
    called = [name for name in others if any(part in name.lower() for part in NAMES)]
    near = [name for name in header[:FIRST_COLUMNS] if name in others]
    for name in list(dict.fromkeys([*called, *near]))[:MOST_COLUMNS]:
        chunk = next(read(Selection(numbers=(), group=selection.group, time=name)), None)
        found = None if chunk is None else _look(chunk, name, form)
        if found is not None:
            return (found,)
    return ()


def _look(chunk: Chunk, name: str, form: TableFormat) -> Finding | None:
    places = Places(chunk.source)
    places.add(chunk)
    try:
        reader = TimeReader(name, form, places)
        reader.add(chunk)
        times, _ = reader.finish(None)
    except InputError:  # no times, or such as need an option
        return None
    if times is None or (times.kind == "number" and dates_in_numbers(times) is None):
        return None
    codes = None
    if chunk.groups is not None:
        codes = Encoder().add(chunk.groups, chunk.unnamed)
    order = TimeOrder.of(times.moments, codes)
    message = (
        f"column {name!r} holds times, {times.text(0)!r} in {places.row(0)}, and is not read: "
    )
    wrong = np.flatnonzero(order.steps <= 0)
    if not len(wrong):
        lost = "gaps and the order of the rows are not looked at"
        return Finding(kind="time", message=message + lost, hint=option("time_column", name))
    at = int(wrong[order.rows[wrong].argmin()])
    return Finding(
        kind="time",
        message=f"{message}{_step_back(times, order, at, places)}",
        hint=f"{option('time_column', name)} says why, "
        f"{option('group', 'COLUMN')} tells several series apart"
        if chunk.groups is None
        else f"{option('time_column', name)} says why",
    )


def _step_back(times: Times, order: TimeOrder, at: int, places: Places) -> str:
    row, before = int(order.rows[at]), int(order.rows[at - 1])
    return (
        f"{times.text(row)!r} in {places.row(row)} is not later than {times.text(before)!r} in {places.row(before)}, "
        f"and a split by time needs {option_name('time_column')} to ascend"
    )
