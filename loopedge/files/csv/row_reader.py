"""Table rows of a CSV, some at a time, all of one width; what cannot be read is said with its line and column."""

import csv
import itertools
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from loopedge.errors import InputError
from loopedge.files.csv.form import CsvForm, form_option
from loopedge.files.csv.grid import grid_cells
from loopedge.files.csv.lines import Lines
from loopedge.files.csv.quotes import Quotes
from loopedge.files.text_pieces import count_lines, open_text

__all__ = ["RowBlock", "RowReader", "Swallowed", "place_of"]

ROWS = 4096
"""Most table rows that are held as Python texts at a time."""
CELLS = 1 << 18
"""Most cells that are."""
LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Consecutive table rows.

    Args:
        first: Number of the first, from 1.
        lines: The line on which each ends.
        width: Cells of each.
        rows: The cells of each, or
        cells: all cells, row after row.
    """

    first: int
    lines: Sequence[int]
    width: int
    rows: list[list[str]] | None = None
    cells: list[str] | None = None

    def __len__(self) -> int:
        """Return how many table rows there are."""
        return len(self.lines)

    def column(self, place: int) -> list[str]:
        """Return the cells of a column."""
        if self.cells is not None:
            return self.cells[place :: self.width]
        return list(map(itemgetter(place), self.rows or ()))

    def row(self, number: int) -> list[str]:
        """Return the cells of a table row, counted from 0 in the block."""
        if self.cells is not None:
            return self.cells[number * self.width : (number + 1) * self.width]
        assert self.rows is not None  # one of the two is there
        return self.rows[number]


@dataclass(slots=True, kw_only=True)
class Swallowed:
    """Cells with line breaks in which whole table rows stand: a quote that closes too late may be the reason.

    Args:
        cells: How many.
        first: Number of the table row of the first.
        line: The line on which it ends.
    """

    cells: int = 0
    first: int = 0
    line: int = 0


class RowReader:
    """Reads rows of cells, and says where one cannot be read.

    Attributes:
        width: Cells that each row must have.
        expected: What says so.
        names: Of the columns, where they are known.
    """

    def __init__(self, source: Path, lines: Lines, form: CsvForm) -> None:
        self.source = source
        self.width = 0
        self.expected = ""
        self.names: tuple[str, ...] | None = None
        self._lines = lines
        self._form = form
        self._reader: Any = csv.reader(iter(lines), delimiter=lines.delimiter, strict=True)
        self._number = 0
        self._grid_lines = 0  # lines that the reader did not see
        self._empty: list[tuple[int, list[str]]] = []

    def first_row(self) -> tuple[tuple[int, list[str]], list[tuple[int, list[str]]]] | None:
        """Return the first row that is not an empty line, and the empty lines before it."""
        before: list[tuple[int, list[str]]] = []
        while read := self._read(1):
            (row,), (line,) = read
            if len(row) > 1 or any(map(str.strip, row)):
                return (line, row), before
            before.append((line, row))
        return None

    def blocks(
        self, first: list[tuple[int, list[str]]], swallowed: Swallowed, keep_empty_lines: bool
    ) -> Iterator[RowBlock]:
        """Yield the table rows, all of one width; empty ones only where others follow."""
        size = max(1, min(ROWS, CELLS // max(1, self.width)))
        keep = keep_empty_lines and self.width == 1
        if first:
            yield from self._block([row for _, row in first], [line for line, _ in first], keep)
        while True:
            yield from self._grids()
            read = self._read(size)
            if read is None:
                return
            rows, lines = read
            if not isinstance(lines, range):
                self._look_for_rows(rows, lines, swallowed)
            yield from self._block(rows, lines, keep)

    def _grids(self) -> Iterator[RowBlock]:
        """Yield the table rows that come next, while they can be cut without the reader."""
        while not self._empty and (text := self._lines.plain_text()) is not None:
            cells = grid_cells(text, self._lines.delimiter, self.width)
            if cells is None:
                self._lines.put_back(text)
                return
            count = len(cells) // self.width
            first = self._lines.number(self._line + 1)
            yield RowBlock(
                first=self._number + 1,
                lines=range(first, first + count),
                width=self.width,
                cells=cells,
            )
            self._number += count
            self._grid_lines += count

    @property
    def _line(self) -> int:
        """How many lines were read that hold cells."""
        return int(self._reader.line_num) + self._grid_lines

    def _read(self, count: int) -> tuple[list[list[str]], Sequence[int]] | None:
        """Return the next rows and the line on which each ends; None at the end of the file."""
        rows: list[list[str]] = []
        start = self._line
        failed = None
        try:
            rows.extend(itertools.islice(self._reader, count))  # keeps those before an error
        except csv.Error as error:
            failed = error
        if failed is not None and not rows:
            raise self._explain(failed, start) from failed
        if not rows:
            return None
        if failed is None and self._line - start == len(rows) and self._lines.all_kept(start):
            first = self._lines.number(start + 1)
            return rows, range(first, first + len(rows))
        ends = list(itertools.accumulate(map(_height, rows), initial=start))
        if failed is not None:
            self._check_widths(rows, [self._lines.number(end) for end in ends[1:]])
            raise self._explain(failed, ends[-1]) from failed
        numbers = [self._lines.number(end) for end in ends[1:]]
        self._lines.prune(ends[-1])
        return rows, numbers

    def _block(self, rows: list[list[str]], lines: Sequence[int], keep: bool) -> Iterator[RowBlock]:
        blank = "" in map(str.strip, map("".join, rows))
        if not blank and not self._empty and set(map(len, rows)) == {self.width}:
            yield RowBlock(first=self._number + 1, lines=lines, width=self.width, rows=rows)
            self._number += len(rows)
            return
        kept_rows, kept_lines = [], array("q")
        for line, row in zip(lines, rows, strict=True):
            if not any(map(str.strip, row)):
                if len(row) > 1 or keep:
                    self._empty.append((line, row or [""]))
                continue
            for line_of_row, kept in (*self._empty, (line, row)):
                kept_rows.append(kept)
                kept_lines.append(line_of_row)
            self._empty.clear()
        self._check_widths(kept_rows, kept_lines)
        if kept_rows:
            yield RowBlock(
                first=self._number + 1, lines=kept_lines, width=self.width, rows=kept_rows
            )
            self._number += len(kept_rows)

    def _check_widths(self, rows: list[list[str]], lines: Sequence[int]) -> None:
        wrong = [
            place for place, row in enumerate(rows) if self.width and row and len(row) != self.width
        ]
        if not wrong:
            return
        first = wrong[0]
        width, line = len(rows[first]), lines[first]
        others, total, sure = len(wrong), self._number + len(rows), True
        longer = all(len(rows[at]) == self.width + 1 for at in wrong)
        try:
            for row in self._reader:
                if not any(map(str.strip, row)):
                    continue
                total += 1
                others += len(row) != self.width
                longer &= len(row) == self.width + 1
        except (csv.Error, InputError):
            sure = False
        counted = (
            f" ({'' if sure else 'at least '}{others} of {total} rows differ)" if others > 1 else ""
        )
        number = self._number + first + 1
        raise InputError(
            f"{place_of(self.source, number, line)} has {width} values, {self.expected} has {self.width}{counted}",
            hint=self._ragged_hint(rows[first], longer=longer and others == total),
        )

    def _ragged_hint(self, row: Sequence[str], *, longer: bool) -> str | None:
        delimiter = self._lines.delimiter
        if self._form.decimal == delimiter:
            return "quote the numbers with decimals, or separate the cells with ; or a tab"
        if longer and not row[-1]:
            return f"every row ends with {delimiter!r}: take it away, or let the header end with it too"
        for other in ";\t|,":
            names = (delimiter.join(self.names or ())).split(other)
            if other != delimiter and 1 < len(names) == len(delimiter.join(row).split(other)):
                return form_option("delimiter", other)
        if self._form.comment is None and "#" in (*row[0][:1], *(self.names or ("",))[0][:1]):
            return form_option("comment", "#")
        if longer:
            return "every row has one value more than the header: name the column that the header lacks"
        return None

    def _look_for_rows(self, rows: list[list[str]], lines: Sequence[int], found: Swallowed) -> None:
        """Count the cells with line breaks in which whole table rows stand."""
        delimiter = self._lines.delimiter
        for place, row in enumerate(rows):
            for cell in row:
                if "\n" not in cell and "\r" not in cell:
                    continue
                inside = LINE_END.split(cell)[1:-1]
                if self.width > 1 and any(
                    line.count(delimiter) == self.width - 1 for line in inside
                ):
                    found.cells += 1
                    if found.cells == 1:
                        found.first, found.line = self._number + place + 1, lines[place]

    def _explain(self, error: csv.Error, before: int) -> InputError:
        """Say where the row behind the line ``before`` cannot be read, and why."""
        line = self._lines.number(max(self._line, before + 1))
        with open_text(self.source, self._form.encoding) as text:
            quotes = Quotes(self._lines.delimiter)
            lines = iter(self._lines.again(text.pieces))
            for text_line in itertools.islice(lines, before, self._line):
                quotes.read(text_line)
                if quotes.torn:
                    break
        hint = 'inside a quoted cell write a quote twice: ""'
        long = f"the cell is longer than {csv.field_size_limit()} characters"
        if quotes.torn is not None:
            opened, column, closed = quotes.torn
            line = self._lines.number(before + closed)
            reason = "text stands behind the closing quote"
            if opened != closed:
                reason += f" of line {self._lines.number(before + opened)}"
        elif quotes.open is not None:
            opened, column = quotes.open
            line = self._lines.number(before + opened)
            reason = "the quote that opens there never ends"
            if "limit" in str(error):
                reason = f"{long}, the quote that opens there does not end"
        elif "limit" in str(error):
            column, reason, hint = (
                quotes.column,
                long,
                "shorten it, or write the table without that column",
            )
        else:
            return InputError(f"{self.source} is not a CSV file: line {line}: {error}")
        return InputError(
            f"{self.source} is not a CSV file: line {line}, column {self._name(column)}: {reason}",
            hint=hint,
        )

    def _name(self, column: int) -> str:
        if self.names is not None and column <= len(self.names) and self.names[column - 1]:
            return repr(self.names[column - 1])
        return str(column)


def _height(row: list[str]) -> int:
    """Return how many lines a row takes."""
    text = "".join(row)
    if "\n" not in text and "\r" not in text:
        return 1
    return 1 + sum(count_lines(cell) for cell in row)


def place_of(source: Path, number: int, line: int) -> str:
    """Return where a table row stands, for messages."""
    return f"{source.name}: row {number} (line {line})"
