"""What is read of a table, and how it comes: a few thousand table rows at once, whatever the file's kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from loopedge.errors import InputError
from loopedge.files.arrays import Array

__all__ = ["LARGEST", "UNNAMED", "Chunk", "Selection", "find_column"]

UNNAMED = {"", "nan"}
"""Texts, in lower case, that stand for a missing label or group: "none" and "NA" may be names."""
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
            raise InputError(
                f"column {repeated!r} is named twice as target, covariate, label, group or time"
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
        labels: Text of each label, where they were asked for.
        groups: Text of each group, where they were asked for.
        times: Text of each time, where they were asked for.
        moments: Each time as a number that grows with it, where the file holds it; else the texts say.
    """

    source: str
    first: int
    lines: Sequence[int] | None = None
    numbers: Array
    labels: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    times: Sequence[str] | None = None
    moments: Sequence[int | float] | None = None

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


def _like(name: str, header: Sequence[str]) -> str:
    """Return the column that a name may stand for, to be said behind a hint."""
    close = get_close_matches(name, header, n=1)
    return f", perhaps {close[0]!r}" if close else ""


def find_column(source: Path, header: Sequence[str], name: str) -> int:
    """Return the place of a column.

    Raises:
        InputError: No column, or more than one, is called so.
    """
    if list(header).count(name) > 1:
        raise InputError(f"{source.name}: column {name!r} stands {list(header).count(name)} times")
    if name not in header:
        raise InputError(
            f"{source.name}: no column {name!r}; the columns are {', '.join(header)}",
            hint=f"name one of them{_like(name, header)}",
        )
    return list(header).index(name)
