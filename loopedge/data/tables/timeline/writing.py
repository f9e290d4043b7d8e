"""How a file writes its times, so that further ones are written alike."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

import numpy as np

from loopedge.data.tables.timeline.zones import SECOND, Zone

__all__ = ["StoredTimes", "TimeKind", "Writing", "writing_of"]

TimeKind = Literal["number", "date", "instant"]
"""Plain numbers; dates and times without a zone; times with one."""

ISO = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2}|\d{4}-\d{2}|\d{8}|\d{4}-?W\d{2}(?:-?\d)?)"
    r"(?:(?P<between>[^\d])(?P<clock>\d{2}(?::?\d{2}(?::?\d{2})?)?)(?:(?P<point>[.,])(?P<fraction>\d+))?)?"
    r"(?P<space> ?)(?P<offset>[Zz]|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?"
)
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How times are written.

    Args:
        date: Directives of ``strftime`` for the date; empty for numbers.
        between: What stands between date and time of day.
        clock: Directives of the time of day; empty: dates alone.
        point: What stands before fractions of a second.
        digits: Fractions of a second, or decimals of a number.
        offset: How the offset from UTC is written: ``Z``, ``+00``, ``+0000``, ``+00:00``; empty: it is not.
        ahead_ns: Nanoseconds that the last written offset is ahead of UTC.
        decimal: What stands before the decimals of a number.
        own: ``date`` holds all directives, the offset's too: a format of the user's own.
        trimmed: Fractions of a second are written only where they are not 0.
        bare: A pattern of the zeros that a format of the user's own would write and the file does not.
    """

    date: str = ""
    between: str = ""
    clock: str = ""
    point: str = "."
    digits: int = 0
    offset: str = ""
    ahead_ns: int = 0
    decimal: str = "."
    own: bool = False
    trimmed: bool = False
    bare: str = ""

    @property
    def detail(self) -> tuple[int, int]:
        """How much of a time it says: of several writings in a file, that with most writes all."""
        return len(self.clock), self.digits

    def write(self, moment: float, kind: TimeKind, zone: Zone | None) -> str:
        """Return the text of a moment.

        Args:
            moment: A number; or nanoseconds since 1970.
            kind: What it is.
            zone: The zone whose clocks the text shows; default: the last offset that the file wrote.
        """
        if kind == "number":
            return self._number(moment)
        ahead = 0
        if kind == "instant":
            ahead = self.ahead_ns
            if zone is not None and self.offset.strip() not in ("Z", "z"):
                ahead = int(zone.offsets(np.array([moment], np.int64))[0])
        seconds, rest = divmod(int(moment) + ahead, SECOND)
        local = EPOCH + timedelta(seconds=seconds)
        if self.own:
            local = local.replace(
                microsecond=rest // 1000,
                tzinfo=timezone(timedelta(seconds=ahead // SECOND)),  # for a %Z
            )
            text = local.strftime(self.date.replace("%z", self._offset(ahead)))
            return re.sub(self.bare, "", text) if self.bare else text
        text = local.strftime(f"{self.date}{self.between}{self.clock}")
        if self.digits and (rest or not self.trimmed):
            text += f"{self.point}{rest:09d}"[: self.digits + 1]
        return text + self._offset(ahead)

    def _number(self, moment: float) -> str:
        text = f"{moment:.{self.digits}f}" if self.digits else str(moment)
        return text.replace(".", self.decimal)

    def _offset(self, ahead: int) -> str:
        shape = self.offset.lstrip()
        if shape in ("", "Z", "z"):
            return self.offset
        space = self.offset[: -len(shape)]
        sign = "-" if ahead < 0 else "+"
        hours, seconds = divmod(abs(ahead) // SECOND, 3600)
        colon = ":" if ":" in shape else ""
        if len(shape) == 3 and not seconds:
            return f"{space}{sign}{hours:02d}"
        return f"{space}{sign}{hours:02d}{colon}{seconds // 60:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTimes:
    """What a file with types says of its column of times.

    Args:
        kind: What they are.
        writing: How they are written as text.
        zone: IANA name of their zone, where it is said.
    """

    kind: TimeKind
    writing: Writing
    zone: str | None = None


def writing_of(text: str, *, ahead_ns: int = 0) -> Writing:
    """Return how a time in ISO 8601 is written.

    Args:
        text: The time.
        ahead_ns: What its offset is.

    Unchecked: ``datetime.fromisoformat`` reads it, or it is a year and a month.
    """
    found = ISO.fullmatch(text)
    if found is None:
        return Writing(date="%Y-%m-%d", between=" ", clock="%H:%M:%S", ahead_ns=ahead_ns)
    date, clock = found["date"], found["clock"] or ""
    colon = ":" if ":" in clock else ""
    parts = ["%H", "%M", "%S"][: len(clock.replace(":", "")) // 2]
    return Writing(
        date=_date_directives(date),
        between=found["between"] or "",
        clock=colon.join(parts),
        point=found["point"] or ".",
        digits=len(found["fraction"] or ""),
        offset=found["space"] + _offset_shape(found["offset"] or ""),
        ahead_ns=ahead_ns,
    )


def _date_directives(date: str) -> str:
    dash = "-" if "-" in date else ""
    if "W" in date:
        day = f"{dash}%u" if len(date.replace("-", "")) == 8 else ""
        return f"%G{dash}W%V{day}"
    if len(date) == 7:
        return "%Y-%m"
    return f"%Y{dash}%m{dash}%d"


def _offset_shape(offset: str) -> str:
    if offset in ("", "Z", "z"):
        return offset
    if ":" in offset:
        return "+00:00"
    return "+00" if len(offset) == 3 else "+0000"
