"""Read the texts of times: numbers, dates, and instants, one kind in a column."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from loopedge.data.tables.chunks import Chunk
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.timeline.disorder import fold_hours
from loopedge.data.tables.timeline.formats import FormatGuess, own_writing, parser_of
from loopedge.data.tables.timeline.order import TimeOrder
from loopedge.data.tables.timeline.places import Places
from loopedge.data.tables.timeline.writing import TimeKind, Writing, writing_of
from loopedge.data.tables.timeline.zones import DAY, SECOND, Zone
from loopedge.data.tables.times import Times
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option

__all__ = ["TimeReader"]

MONTH = re.compile(r"\d{4}-\d{2}")
"""ISO 8601 with the day left out, which ``datetime.fromisoformat`` does not read."""
NANOSECONDS = re.compile(r"[.,]\d{6}(\d{1,3})")
"""Digits that ``datetime.fromisoformat`` leaves out."""
EPOCH = datetime(1970, 1, 1)
KINDS: tuple[TimeKind, ...] = ("number", "date", "instant")
CALLED = {"number": "a number", "date": "a date", "instant": "a time with a zone"}
PLURAL = {
    "number": ("time is a number", "times are numbers"),
    "date": ("time has no zone", "times have no zone"),
    "instant": ("time has a zone", "times have a zone"),
}
LARGEST = 2**63 - 1
UNREAD = 3
FIRST_YEAR, LAST_YEAR = 1678, 2261
DATE_ALONE = 10
"""Characters of a text that holds no time of day."""


@dataclass(slots=True)
class _Seen:
    """Times of one sort: how many, and the first."""

    row: int
    text: str
    count: int = 0


class TimeReader:
    """Turns the texts of a column of times into moments, while its table rows come.

    Args:
        column: Its name.
        form: How times are written, and the zone of those that say none.
        places: Where the table rows stand; it has seen a chunk before the reader does.
    """

    def __init__(self, column: str, form: TableFormat, places: Places) -> None:
        self.column, self._form, self._places = column, form, places
        self._parse = parser_of(form.time_format or "")
        self._zone = None if form.timezone is None else Zone(form.timezone)
        self._moments: array[int] | array[float] = array("q")
        self._local = bytearray()
        """Of each table row whether its time says no zone, where the user named one."""
        self._kinds: dict[TimeKind, _Seen] = {}
        self._widths: dict[int, _Seen] = {}
        self._writing: Writing | None = None
        self._unread: _Seen | None = None
        self._missing: _Seen | None = None
        self._guess = FormatGuess()

    def add(self, chunk: Chunk) -> None:
        """Take the times of further table rows.

        Raises:
            InputError: A time is too far from 1970.
        """
        if chunk.stored is not None and chunk.moments is not None:
            self._add_typed(chunk)
        elif chunk.times is not None:
            self._add_texts(chunk.first, [text.strip() for text in chunk.times])

    def _add_typed(self, chunk: Chunk) -> None:
        assert chunk.stored is not None
        assert chunk.moments is not None
        self._moments.frombytes(np.ascontiguousarray(chunk.moments, np.int64).tobytes())
        if chunk.stored.zone is not None and self._zone is None:
            self._zone = Zone(chunk.stored.zone)
        self._writing = chunk.stored.writing
        self._count(chunk.stored.kind, chunk.first, "", len(chunk.moments))
        self._local.extend(bytes([chunk.stored.kind == "date"]) * len(chunk.moments))

    def _add_texts(self, first: int, texts: Sequence[str]) -> None:
        alike = self._read_alike(texts)
        if alike is None:
            self._add_each(first, texts)
            return
        kind, moments = alike
        self._count(kind, first, texts[0], len(texts))
        self._local.extend(bytes([kind == "date"]) * len(texts))
        self._see_widths(first, texts)
        if self._moments.typecode == "q":
            self._moments.frombytes(moments.tobytes())
        else:
            self._moments.extend(moments.astype(np.float64))

    def _read_alike(self, texts: Sequence[str]) -> tuple[TimeKind, Array] | None:
        """Return the kind and the moments of texts that are all whole numbers, or all dates without a zone; else None.

        It is several times as fast as one after the other, and most columns are such.
        """
        joined = "".join(texts)
        if not joined.isascii() or "_" in joined:
            return None
        try:
            if self._form.time_format is not None:
                found = list(map(self._parse, texts))
            elif all(text[4:5] == "-" and 10 <= len(text) <= 26 for text in texts):
                found = list(map(datetime.fromisoformat, texts))
            else:
                return "number", np.array(list(map(int, texts)), np.int64)
        except (ValueError, OverflowError):
            return None
        if any(moment.tzinfo is not None for moment in found):
            return None
        if min(found).year < FIRST_YEAR or max(found).year > LAST_YEAR:
            return None
        return "date", np.array(found, "datetime64[us]").astype(np.int64) * 1000

    def _add_each(self, first: int, texts: Sequence[str]) -> None:
        values: list[int | float] = []
        unread = []
        kinds = bytearray()
        for row, text in enumerate(texts):
            try:
                kind, value = self._read(text)
            except ValueError:
                kind, value = UNREAD, 0
                if text:
                    unread.append(row)
                else:
                    self._missing = self._missing or _Seen(first + row, text)
                    self._missing.count += 1
            except OverflowError:
                raise InputError(
                    f"{self._place(first + row)}: {text!r} is outside of the years {FIRST_YEAR} to {LAST_YEAR}",
                    hint="number the rows, and name that column",
                ) from None
            values.append(value)
            kinds.append(kind)
        for number, kind_name in enumerate(KINDS):
            if count := kinds.count(number):
                row = kinds.index(number)
                self._count(kind_name, first + row, texts[row], count)
        self._local.extend(1 if kind == 1 else 0 for kind in kinds)
        if unread:
            self._count_unread(first, [texts[row] for row in unread], unread[0])
        else:
            self._see_widths(first, texts)
        self._extend(values)

    def _read(self, text: str) -> tuple[int, int | float]:
        """Return the place of its kind and the moment of a text.

        Raises:
            ValueError: It is none.
            OverflowError: It is too far from 1970.
        """
        time_format = self._form.time_format
        if time_format is None:
            number = self._read_number(text)
            if number is not None:
                return 0, number
            moment = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
        else:
            moment = self._parse(text)
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise OverflowError
        kind, offset = 1, moment.utcoffset()
        if offset is not None:
            kind, moment = 2, moment.replace(tzinfo=None) - offset
        since: timedelta = moment - EPOCH
        found = (since.days * 86_400 + since.seconds) * SECOND + since.microseconds * 1000
        if len(text) > 26 and time_format is None and (more := NANOSECONDS.search(text)):
            found += int(more[1].ljust(3, "0"))
        return kind, found

    def _read_number(self, text: str) -> int | float | None:
        if text[4:5] == "-" or "_" in text:  # by far the most frequent date
            return None
        plain = text
        if self._form.decimal != ".":
            plain = plain.replace(self._form.decimal, ".")
        try:
            number = int(plain)
        except ValueError:
            pass
        else:
            if abs(number) > LARGEST:
                raise OverflowError
            return number
        try:
            found = float(plain)
        except ValueError:
            return None
        return found if math.isfinite(found) else None

    def _extend(self, values: Sequence[int | float]) -> None:
        if self._moments.typecode == "q":
            if not any(isinstance(value, float) for value in values):
                self._moments.extend(values)  # type: ignore[arg-type]  # whole, as was asked
                return
            self._moments = array("d", self._moments)
        self._moments.extend(values)  # type: ignore[arg-type]  # whole ones become float

    def _count(self, kind: TimeKind, row: int, text: str, count: int) -> None:
        self._kinds.setdefault(kind, _Seen(row, text)).count += count

    def _count_unread(self, first: int, texts: Sequence[str], row: int) -> None:
        if self._unread is None:
            self._unread = _Seen(first + row, texts[0])
        self._unread.count += len(texts)
        self._guess.add(texts)

    def _see_widths(self, first: int, texts: Sequence[str]) -> None:
        """Learn how times are written from one of each length."""
        widths = list(map(len, texts))
        for width in set(widths):
            seen = self._widths.get(width)
            if seen is None:
                row = widths.index(width)
                seen = self._widths[width] = _Seen(first + row, texts[row])
            seen.count += widths.count(width)
        self._last = texts[-1]

    def _place(self, row: int) -> str:
        return f"{self._places.where(row)}, column {self.column!r}"

    def finish(self, groups: Array | None) -> tuple[Times | None, tuple[Finding, ...]]:
        """Return the times, and what a person should know of them.

        Args:
            groups: int (table rows,): the series of each.

        Raises:
            InputError: A time is missing, cannot be read, is of another kind than the others, or does not exist in the zone.
        """
        problems = (self._find_missing(), self._find_unread(), self._find_kinds())
        first = min(
            (each for each in problems if each is not None), key=lambda each: each[0], default=None
        )
        if first is not None:
            raise first[1]
        if not self._kinds:
            return None, ()
        moments = np.frombuffer(
            self._moments, "float64" if self._moments.typecode == "d" else "int64"
        )
        kind = next(iter(self._kinds))
        if self._form.timezone is not None and kind != "number":
            moments, kind = self._to_instants(moments, groups), "instant"
        times = Times(
            kind=kind,
            moments=moments,
            writing=self._writing or self._find_writing(kind),
            column=self.column,
            zone=self._zone if kind == "instant" else None,
        )
        return times, self._find_mixed_widths()

    def _find_missing(self) -> tuple[int, InputError] | None:
        missing = self._missing
        if missing is None:
            return None
        more = f" ({missing.count:,} times are)" if missing.count > 1 else ""
        return missing.row, InputError(f"{self._place(missing.row)}: the time is missing{more}")

    def _find_unread(self) -> tuple[int, InputError] | None:
        """Return the table row of the first time that cannot be read, and what to say of it."""
        unread = self._unread
        if unread is None:
            return None
        place, text, guess = self._place(unread.row), unread.text, self._guess.hint
        more = f" ({unread.count:,} times of the column are not)" if unread.count > 1 else ""
        time_format = self._form.time_format
        good = next(iter(self._kinds.values()), None)
        # A word among times: a row of sums, a remark.
        word = good is not None and not any(map(str.isdigit, text))
        if time_format is not None:
            alike = "leave out the rows that hold no time" if word else "write all times alike"
            error = InputError(
                f"{place}: {text!r} is not written as {time_format!r} says{more}",
                hint=guess if good is None else alike,
            )
        elif good is not None and guess:
            more = f" ({unread.count:,} times are)" if unread.count > 1 else ""
            error = InputError(
                f"{place}: {text!r} is written otherwise than {good.text!r} in {self._places.row(good.row)}{more}",
                hint="write all times alike, as YYYY-MM-DD",
            )
        else:
            error = InputError(
                f"{place}: {text!r} is neither a number nor an ISO 8601 date{more}",
                hint="leave out the rows that hold no time"
                if word
                else guess or "write dates as YYYY-MM-DD",
            )
        return unread.row, error

    def _find_kinds(self) -> tuple[int, InputError] | None:
        """Return the first table row whose time cannot be compared with those before, and what to say of it."""
        kinds = dict(self._kinds)
        if self._form.timezone is not None and "number" not in kinds:
            return None  # times without a zone become instants
        if len(kinds) < 2:
            return None
        (one, before), (other, seen) = sorted(kinds.items(), key=lambda item: item[1].row)[:2]
        hint = "write all times alike"
        if {one, other} == {"date", "instant"}:
            hint = f"{form_option('timezone', 'Europe/Berlin')} names the zone of those without one"
        counts = ", ".join(
            f"{each.count:,} {PLURAL[kind][each.count != 1]}"
            for kind, each in ((one, before), (other, seen))
        )
        return seen.row, InputError(
            f"{self._place(seen.row)}: {seen.text!r} is {CALLED[other]}, {before.text!r} in "
            f"{self._places.row(before.row)} is {CALLED[one]} ({counts})",
            hint=hint,
        )

    def _to_instants(self, local: Array, groups: Array | None) -> Array:
        """Return the instants of times without a zone; of an hour that stands twice, the second is the later one."""
        assert self._zone is not None
        asked = np.frombuffer(self._local, np.uint8) == 1
        order = TimeOrder.of(local, groups)
        if not asked.all():  # what clocks show at the instants that the file says
            order = TimeOrder.of(np.where(asked, local, self._zone.local(local)), groups)
        instants, shown = fold_hours(self._zone, order)
        found, exists = np.empty_like(instants), np.empty_like(shown)
        found[order.rows], exists[order.rows] = instants, shown
        dates_alone = bool(self._widths) and max(self._widths) <= DATE_ALONE
        self._check_shown(exists | ~asked | (dates_alone & (local % DAY == 0)))
        return np.where(asked, found, local)

    def _check_shown(self, shown: Array) -> None:
        if shown.all():
            return
        row = int(np.argmin(shown))
        text = self._writing_text(row)
        count = int((~shown).sum())
        more = f" ({count} such times)" if count > 1 else ""
        raise InputError(
            f"{self._place(row)}: clocks of {self._form.timezone} never show {text!r}: "
            f"they are put forward then{more}",
            hint=f"leave out {form_option('timezone', str(self._form.timezone))} where times are in one offset all year",
        )

    def _writing_text(self, row: int) -> str:
        writing = self._writing or self._find_writing("date")
        return writing.write(self._moments[row], "date", None)

    def _find_writing(self, kind: TimeKind) -> Writing:
        texts = [seen.text for seen in self._widths.values()]
        if self._form.time_format is not None:
            return own_writing(self._form.time_format, texts)
        if kind == "number":
            fractions = [text.replace(self._form.decimal, ".").partition(".")[2] for text in texts]
            whole = all(not each or each.isdigit() for each in fractions)
            digits = max(map(len, fractions), default=0) if whole else 0
            return Writing(digits=digits, decimal=self._form.decimal)
        last = datetime.fromisoformat(
            f"{self._last}-01" if MONTH.fullmatch(self._last) else self._last
        )
        ahead = last.utcoffset() or timedelta(0)
        ahead_ns = int(ahead.total_seconds()) * SECOND
        return max(
            (writing_of(text, ahead_ns=ahead_ns) for text in texts), key=lambda each: each.detail
        )

    def _find_mixed_widths(self) -> tuple[Finding, ...]:
        """Say where some times are dates alone and others are not."""
        alone = [seen for width, seen in self._widths.items() if width <= DATE_ALONE]
        others = [seen for width, seen in self._widths.items() if width > DATE_ALONE]
        if "number" in self._kinds or not alone or not others or self._form.time_format is not None:
            return ()
        first, other = (min(each, key=lambda seen: seen.row) for each in (alone, others))
        count = sum(seen.count for seen in alone)
        message = (
            f"column {self.column!r}: {count:,} of {len(self._moments):,} times are dates alone and taken as midnight, "
            f"the first is {first.text!r} in {self._places.row(first.row)}; "
            f"{other.text!r} in {self._places.row(other.row)} has a time of day"
        )
        return (Finding(kind="time", message=message),)
