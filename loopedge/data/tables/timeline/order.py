"""Times must ascend in each series: a split by time is only one if the table rows are in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loopedge.data.tables.timeline.disorder import explain_disorder
from loopedge.files.arrays import Array

if TYPE_CHECKING:
    from loopedge.data.tables.reading import Table

__all__ = ["OtherColumns", "TimeOrder", "check_ascending"]


class OtherColumns(Protocol):
    """Columns of the file that were not read: one may tell series apart."""

    @property
    def path(self) -> Path:
        """The file."""

    def names(self) -> Sequence[str]:
        """Return the names of all columns."""

    def codes(self, name: str, *, rows: int | None = None) -> Array | None:
        """Return which text each table row has in a column, int32; None where one is missing, or there are too many.

        Args:
            name: The column.
            rows: Of the first table rows, about so many will do.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeOrder:
    """Times of a table, series after series, each in the order of its table rows.

    Args:
        rows: int64 (table rows,): the number of each in the file.
        moments: (table rows,): its time.
        series: int (table rows,): the number of its series, ascending.
    """

    rows: Array
    moments: Array
    series: Array

    @property
    def steps(self) -> Array:
        """Time from the row before, 1 for the first row of a series."""
        steps = np.ones(len(self.rows), self.moments.dtype)
        if len(self.rows) > 1:
            inner = np.diff(self.series) == 0
            steps[1:][inner] = np.diff(self.moments)[inner]
        return steps

    @property
    def inner(self) -> Array:
        """Whether a table row has one before it in its series."""
        return np.asarray(np.diff(self.series, prepend=-1) == 0)

    @classmethod
    def of(cls, moments: Array, series: Array | None) -> "TimeOrder":
        """Return the order of times.

        Args:
            moments: (table rows,): in the order of the file.
            series: int (table rows,): the series of each; default: all are one.
        """
        if series is None:
            rows = np.arange(len(moments))
            return cls(rows=rows, moments=moments, series=np.zeros(len(moments), np.int32))
        rows = np.argsort(series, kind="stable")
        return cls(rows=rows, moments=moments[rows], series=series[rows])


def check_ascending(table: "Table", other_columns: Callable[[], OtherColumns]) -> None:
    """Refuse a table in which a time is not later than the one before in its series.

    Args:
        table: As read, with its times.
        other_columns: Opens the file once more, where the times do not ascend.

    Raises:
        InputError: The message says which table rows and why, as far as the file shows, and the hint what mends it.
    """
    if table.times is None:
        return
    series = None if table.groups is None else table.groups.codes
    moments = table.times.moments
    if series is None and not (moments[1:] <= moments[:-1]).any():
        return
    order = TimeOrder.of(moments, series)
    if (order.steps <= 0).any():
        raise explain_disorder(table, order, other_columns())
