"""Check that the times of a series ascend: a split by time is only one if the rows are in order."""

import math
import re
from collections.abc import Iterable
from datetime import datetime

from loopedge.errors import InputError

__all__ = ["check_ascending"]

Moment = int | float | datetime
MONTH = re.compile(r"\d{4}-\d{2}")
"""ISO 8601 with the day left out, which ``datetime.fromisoformat`` does not read."""


def check_ascending(cells: Iterable[tuple[str, str]], column: str) -> None:
    """Check that each time is later than the one before.

    Args:
        cells: Per row, where it stands and its text: a number, or an ISO 8601 date or time.
        column: Name of the column.

    Raises:
        InputError: A time is missing, cannot be read, is of another kind than those before, stands
            twice, or is earlier than the one before.

    Unchecked: equal steps from row to row.
    """
    previous: Moment | None = None
    previous_text = ""
    for place, cell in cells:
        text, where = cell.strip(), f"{place}, column {column!r}"
        moment = _moment(text, where)
        if previous is not None:
            _check_kind(moment, previous, text, previous_text, where)
            if moment == previous:
                raise InputError(f"{where}: {text!r} stands twice, also in the row before")
            if moment < previous:  # type: ignore[operator]  # of one kind, by _check_kind
                raise InputError(
                    f"{where}: {text!r} is earlier than {previous_text!r} in the row before",
                    hint=f"sort the rows by {column!r}, oldest first",
                )
        previous, previous_text = moment, text


def _moment(text: str, where: str) -> Moment:
    if not text:
        raise InputError(f"{where}: the time is missing")
    for number in (int, float):  # an integer of many digits is no float
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
            f"{where}: {text!r} is neither a number nor an ISO 8601 date",
            hint="write dates as YYYY-MM-DD",
        ) from None


def _check_kind(moment: Moment, before: Moment, text: str, text_before: str, where: str) -> None:
    """Refuse to compare a number with a date, or a time with and one without a zone."""
    if _kind(moment) != _kind(before):
        raise InputError(
            f"{where}: {text!r} is {_kind(moment)}, {text_before!r} before it is {_kind(before)}"
        )


def _kind(moment: Moment) -> str:
    if not isinstance(moment, datetime):
        return "a number"
    return "a date" if moment.tzinfo is None else "a time with a zone"
