"""Formats of times other than ISO 8601: which one fits texts, and how a file writes its own."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from loopedge.data.tables.timeline.writing import Writing
from loopedge.data.tables.timeline.zones import SECOND
from loopedge.errors import InputError
from loopedge.files.csv.form import form_option
from loopedge.options import option_name

__all__ = ["FormatGuess", "check_time_format", "own_writing", "parser_of"]

DATES = (
    *(
        "%d.%m.%Y",
        "%d.%m.%y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%m-%d-%Y",
        "%Y/%m/%d",
        "%Y.%m.%d",
    ),
    *("%d/%m/%y", "%m/%d/%y", "%Y-%m-%d", "%Y%m%d", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y"),
    *("%b %d, %Y", "%B %d, %Y", "%b %Y", "%B %Y", "%b-%y", "%m/%Y", "%m.%Y", "%Y/%m"),
)
CLOCKS = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%H.%M", "%H%M")
BETWEEN = (" ", ", ", "T", ":")
OFFSETS = ("", " %z", "%z", " %Z", " UTC", " GMT")
SEEN = 20_000
"""Texts that a guess looks at."""
DIRECTIVE = re.compile(r"%.")
FIELDS = {
    "%Y": ("year", r"(\d{4})"),
    "%m": ("month", r"(\d\d)"),
    "%d": ("day", r"(\d\d)"),
    "%H": ("hour", r"(\d\d)"),
    "%M": ("minute", r"(\d\d)"),
    "%S": ("second", r"(\d\d)"),
}
"""Directives that are read without ``strptime``, where they are written in full."""
ORDER = ("year", "month", "day", "hour", "minute", "second")
OFFSET_END = re.compile(r"(?:(Z)|[+-]\d{2}(:?)\d{2})$")
BARE = (r"(?<![\d:])0(?=\d(?!:)(?!\d:))", r"(?<![\d:])0(?=\d)")
"""Zeros of the date alone, and of the hour too."""


def check_time_format(time_format: str) -> None:
    """Refuse a format that ``strptime`` does not read, or that says no year.

    Raises:
        InputError: The message names the option.
    """
    sample = datetime(2023, 11, 25, 21, 42, 37)
    hint = form_option("time_format", "%d.%m.%Y %H:%M")
    name = option_name("time_format")
    try:
        again = datetime.strptime(sample.astimezone().strftime(time_format), time_format)
    except (ValueError, re.error) as error:
        raise InputError(
            f"{name} {time_format!r} is not a format of times: {error}", hint=hint
        ) from error
    if again.year != sample.year:
        raise InputError(f"{name} {time_format!r} does not say the year", hint=hint)


def parser_of(time_format: str) -> Callable[[str], datetime]:
    """Return what reads times of a format as ``datetime.strptime`` does, most of them five times as fast.

    Args:
        time_format: Directives of ``strptime``.
    """
    fields = [FIELDS.get(each) for each in DIRECTIVE.findall(time_format)]
    names = [field[0] for field in fields if field is not None]
    if None in fields or len(set(names)) < len(names) or "year" not in names:
        return lambda text: datetime.strptime(text, time_format)
    pattern = re.escape(DIRECTIVE.sub("\0", time_format))
    for field in fields:
        assert field is not None
        pattern = pattern.replace("\0", field[1], 1)
    digits = re.compile(pattern, re.ASCII)
    order = [names.index(name) if name in names else None for name in ORDER]

    def read(text: str) -> datetime:
        found = digits.fullmatch(text)
        if found is None:  # such as a day of one digit
            return datetime.strptime(text, time_format)
        groups = found.groups()
        year, month, day = (1 if at is None else int(groups[at]) for at in order[:3])
        hour, minute, second = (0 if at is None else int(groups[at]) for at in order[3:])
        return datetime(year, month, day, hour, minute, second)

    return read


def own_writing(time_format: str, texts: Sequence[str]) -> Writing:
    """Return how a file writes times in a format of the user's own.

    Args:
        time_format: Directives of ``strptime``.
        texts: Some of its times.
    """
    last = datetime.strptime(texts[-1], time_format)
    ahead = last.utcoffset() or timedelta(0)
    end = OFFSET_END.search(texts[-1]) if "%z" in time_format else None
    writing = Writing(
        date=time_format,
        own=True,
        offset="" if end is None else end[1] or f"+00{end[2]}00",
        ahead_ns=int(ahead.total_seconds()) * SECOND,
    )
    bare = (replace(writing, bare=pattern) for pattern in BARE)
    for candidate in (writing, *bare):
        if all(_same(candidate, text) for text in texts):
            return candidate
    return writing


def _same(writing: Writing, text: str) -> bool:
    """Tell whether a text is written so, but for its offset."""
    again = datetime.strptime(text, writing.date).strftime(writing.date.replace("%z", ""))
    if writing.bare:
        again = re.sub(writing.bare, "", again)
    if writing.offset:
        text = OFFSET_END.sub("", text)
    return again == text


class FormatGuess:
    """Which formats fit all texts that were seen."""

    def __init__(self) -> None:
        self._fitting: list[str] | None = None
        self._seen = 0

    def add(self, texts: Sequence[str]) -> None:
        """See further texts, which are not ISO 8601."""
        chosen = texts[: max(0, SEEN - self._seen)]
        self._seen += len(chosen)
        for text in chosen:
            if self._fitting is None:
                self._fitting = _all_fitting(text)
            elif self._fitting:
                self._fitting = [each for each in self._fitting if _fits(text, each)]

    @property
    def hint(self) -> str | None:
        """The option that reads the texts; both where day and month may be either."""
        if not self._fitting:
            return None
        first = form_option("time_format", self._fitting[0])
        others = [each for each in self._fitting[1:] if _swapped(self._fitting[0], each)]
        if not others:
            return first
        return f"{first} where the day stands first, {form_option('time_format', others[0])} where the month does"


def _all_fitting(text: str) -> list[str]:
    found = []
    marks = _marks(text)
    for date in DATES:
        for clock in CLOCKS:
            for between in BETWEEN if clock else ("",):
                for offset in OFFSETS if clock else ("",):
                    whole = f"{date}{between}{clock}{offset}"
                    if marks - {*"+-:"} <= _marks(whole) <= marks and _fits(text, whole):
                        found.append(whole)
    return found


def _marks(text: str) -> set[str]:
    """Return what stands between the numbers and names of a text or a format: most formats differ in that."""
    plain = DIRECTIVE.sub("", text)
    return {mark for mark in plain if not mark.isalnum() and not mark.isspace()}


def _fits(text: str, time_format: str) -> bool:
    try:
        read = datetime.strptime(text, time_format)
    except ValueError:
        return False
    return 1677 < read.year < 2262


def _swapped(one: str, other: str) -> bool:
    """Tell whether two formats differ in the places of day and month alone."""
    return one != other and one.replace("%d", "%m") == other.replace("%d", "%m")
