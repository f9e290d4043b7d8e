"""What is read of a table, and how it comes: a few thousand table rows at once, whatever the file's kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from loopedge.data.tables.timeline.writing import StoredTimes
from loopedge.data.tables.wide import wide_hint
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option

__all__ = [
    "LARGEST",
    "UNNAMED",
    "Chunk",
    "Selection",
    "find_column",
    "header_hint",
    "near_names",
    "show_names",
]

UNNAMED = frozenset({"", "nan", "NaN"})
"""Texts of a CSV that stand for a missing label or group: "None", "NA" and "Nan" may be names."""
MOST_SHOWN = 30
"""Columns that an error names."""
SEPARATORS = "|;\t, "
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Columns to read, by name.

    Args:
        numbers: Columns of numbers.
        label: Column of labels, numbers or texts.
        group: Column of the name of the series that a table row belongs to.
        time: Column whose times must ascend within each series.
        headerless: A CSV without a header will do where it holds ``numbers`` alone, in this order; its rows are not
            checked by ``time`` then.
    """

    numbers: tuple[str, ...]
    label: str | None = None
    group: str | None = None
    time: str | None = None
    headerless: bool = False

    def __post_init__(self) -> None:
        """Refuse a column that is named for two purposes."""
        repeated = next((name for name in self.all if self.all.count(name) > 1), None)
        if repeated is not None:
            kinds = [kind for kind, names in self._named() if repeated in names]
            twice = f"as {kinds[0]} and as {kinds[1]}" if len(kinds) > 1 else f"as {kinds[0]}"
            raise InputError(f"column {repeated!r} is named twice, {twice}")

    def _named(self) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
        """What columns are named as."""
        return (
            ("target or covariate", self.numbers),
            ("label", (self.label,)),
            ("group", (self.group,)),
            ("time", (self.time,)),
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every column, in the order of the fields."""
        others = (self.label, self.group, self.time)
        return (*self.numbers, *(name for name in others if name is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive table rows.

    Args:
        source: Name of the file.
        first: Number of the first table row, from 0.
        lines: Line of each table row, where the file has lines.
        numbers: float64 (table rows, columns), NaN where a value is missing.
        labels: Text of each label, where they were asked for; None where the file itself says that it is missing.
        groups: Text of each group, likewise.
        times: Text of each time, where they were asked for.
        moments: int64 (table rows,): each time, where the file holds it: nanoseconds since 1970, or numbers.
        stored: What such times are.
        unnamed: Texts that stand for a missing label or group.
    """

    source: str
    first: int
    lines: Sequence[int] | None = None
    numbers: Array
    labels: Sequence[str | None] | None = None
    groups: Sequence[str | None] | None = None
    times: Sequence[str] | None = None
    moments: Array | None = None
    stored: StoredTimes | None = None
    unnamed: frozenset[str] = UNNAMED

    def where(self, row: int) -> str:
        """Return where a table row of the chunk stands in its file."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        return f"{self.source}: row {self.first + row + 1}{line}"

    def check_size(
        self, names: Sequence[str], text: Callable[[int, str], str] | None = None
    ) -> None:
        """Refuse numbers that float32 cannot hold.

        Args:
            names: Of the columns.
            text: Says what stands in the file, by table row and column; default: the number.

        Raises:
            InputError: The message names the first.
        """
        large = np.abs(self.numbers) > LARGEST
        if large.any():
            row, place = (int(index) for index in np.argwhere(large)[0])
            name = names[place]
            shown = f"{self.numbers[row, place]:g}" if text is None else text(row, name)
            raise InputError(
                f"{self.where(row)}, column {name!r}: {shown!r} is too large for float32"
            )


def find_column(source: Path, header: Sequence[str], name: str) -> int:
    """Return the place of a column.

    Raises:
        InputError: No column, or more than one, is called so.
    """
    if list(header).count(name) > 1:
        raise InputError(f"{source.name}: column {name!r} stands {list(header).count(name)} times")
    if name not in header:
        raise InputError(
            f"{source.name}: no column {name!r}; the columns are {show_names(header)}",
            hint=header_hint(header) or f"name one of them{_like(name, header)}",
        )
    return list(header).index(name)


def header_hint(header: Sequence[str]) -> str | None:
    """Return why a header may not be the one that was meant: a comment, another separator, a wide table."""
    if header and header[0].startswith("#"):
        return form_option("comment", "#")
    if len(header) == 1:
        found = max(SEPARATORS, key=header[0].strip().count)  # of equal counts the first
        if found in header[0].strip():
            return form_option("delimiter", found)
    return wide_hint(header)


def show_names(header: Sequence[str]) -> str:
    """Return the names of columns for people: the first ones, and characters that cannot be seen as escapes."""
    shown = [
        name if (name and name.isprintable() and name.isascii()) or name.isalnum() else repr(name)
        for name in header[:MOST_SHOWN]
    ]
    more = len(header) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def near_names(name: str, header: Sequence[str]) -> list[str]:
    """Return the columns that a name may stand for, best first: case, blanks and invisible characters aside."""
    plain = {other: "".join(other.casefold().split()).strip("\ufeff\u200b") for other in header}
    wanted = "".join(name.casefold().split())
    same = [other for other, text in plain.items() if text == wanted]
    close = get_close_matches(name, header, n=3)
    return list(dict.fromkeys([*same, *close]))


def _like(name: str, header: Sequence[str]) -> str:
    """Return the column that a name may stand for, to be said behind a hint."""
    near = near_names(name, header)
    return f", perhaps {near[0]!r}" if near else ""
