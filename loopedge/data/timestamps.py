"""Check that the times of a series ascend: a split by time is only one if the table rows are in order."""

import math
import re
from collections.abc import Callable
from datetime import datetime

from loopedge.errors import InputError

__all__ = ["TimeOrder"]

Moment = int | float | datetime
MONTH = re.compile(r"\d{4}-\d{2}")
"""ISO 8601 with the day left out, which ``datetime.fromisoformat`` does not read."""


class TimeOrder:
    """Checks, table row after table row, that each time is later than the one before in its series.

    Args:
        column: Name of the column of times.

    Unchecked: equal steps from table row to table row.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._before: dict[str | None, tuple[Moment, str]] = {}

    def check(
        self,
        cell: str,
        where: Callable[[], str],
        *,
        group: str | None = None,
        moment: Moment | None = None,
    ) -> None:
        """Check the time of the next table row.

        Args:
            cell: Its text: a number, or an ISO 8601 date or time.
            where: Says where the table row stands.
            group: Which of several series the table row belongs to.
            moment: The time itself, where the file holds it.

        Raises:
            InputError: The time is missing, cannot be read, is of another kind than those before,
                stands twice, or is earlier than the one before.
        """
        text = cell.strip()
        known = self._before.get(group)
        if moment is None or not text:
            moment = _moment(text, lambda: self._place(where))
        if known is not None:
            before, text_before = known
            if _kind(moment) != _kind(before):
                raise InputError(
                    f"{self._place(where)}: {text!r} is {_kind(moment)}, "
                    f"{text_before!r} before it is {_kind(before)}"
                )
            of = "" if group is None else f" of {group!r}"
            if moment == before:
                raise InputError(
                    f"{self._place(where)}: {text!r} stands twice, also in the row before{of}"
                )
            if moment < before:  # type: ignore[operator]  # of one kind
                raise InputError(
                    f"{self._place(where)}: {text!r} is earlier than {text_before!r} in the row "
                    f"before{of}",
                    hint=f"sort the rows by {self.column!r}, oldest first",
                )
        self._before[group] = (moment, text)

    def _place(self, where: Callable[[], str]) -> str:
        return f"{where()}, column {self.column!r}"


def _moment(text: str, where: Callable[[], str]) -> Moment:
    if not text:
        raise InputError(f"{where()}: the time is missing")
    for number in (int, float):  # an integer of many digits is not a float
        try:
            found: int | float = number(text)
        except ValueError:
            continue
        if "_" not in text and (isinstance(found, int) or math.isfinite(found)):
            return found
    try:
        return datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    except ValueError:
        raise InputError(
            f"{where()}: {text!r} is neither a number nor an ISO 8601 date",
            hint="write dates as YYYY-MM-DD",
        ) from None


def _kind(moment: Moment) -> str:
    """Tell numbers, dates and times with a zone apart: they cannot be compared with each other."""
    if not isinstance(moment, datetime):
        return "a number"
    return "a date" if moment.tzinfo is None else "a time with a zone"
