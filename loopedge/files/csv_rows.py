"""Read a CSV file strictly, one table row after the other: tables to train on and arrays to run on alike.

A table is a rectangle of cells in UTF-8, separated by commas, semicolons or tabs. Whatever is not such a
table is one error that says the table row and the line.
"""

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from loopedge.errors import InputError
from loopedge.files.cells import find_delimiter
from loopedge.files.utf8 import first_bad_byte, recoding_hint

__all__ = ["CsvTable", "TableRow", "open_csv"]


class TableRow(NamedTuple):
    """A table row: its number from 1 without the header, the line on which it ends, and its cells."""

    number: int
    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """A CSV file that is being read.

    Args:
        source: The file.
        header: Names of the columns, where the file has a header.
        width: Cells of every table row.
        rows: The table rows; can be iterated once.
    """

    source: Path
    header: tuple[str, ...] | None
    width: int
    rows: Iterator[TableRow]

    def place(self, number: int, line: int) -> str:
        """Return where a table row stands, for messages."""
        return _place(self.source, number, line)


def _always(cells: Sequence[str]) -> bool:
    return True


@contextlib.contextmanager
def open_csv(
    source: Path,
    *,
    is_header: Callable[[Sequence[str]], bool] = _always,
    keep_empty_lines: bool = True,
) -> Iterator[CsvTable]:
    """Open a CSV file; its rows are read while they are iterated, inside the ``with`` block.

    Empty lines, and table rows without any text at the end of the file, are left out. A row of empty cells
    before others is a row whose values are missing: without it time would shift. Where there is one
    column, such a row is an empty line.

    Args:
        source: The file.
        is_header: Returns whether the first row with a text names the columns; default: it does.
        keep_empty_lines: Take an empty line of a table of one column for an empty cell.

    Raises:
        InputError: The file holds no text, is not UTF-8, holds a NUL byte or a quote that never ends, names
            a column twice, or a row has more or fewer cells than the first; on opening, or while its rows
            are iterated.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as text:
            yield _open(source, text, is_header, keep_empty_lines=keep_empty_lines)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is not UTF-8 text: byte {first_bad_byte(source)}",
            hint=recoding_hint(source, "utf8.csv"),
        ) from error


def _open(
    source: Path,
    text: TextIO,
    is_header: Callable[[Sequence[str]], bool],
    *,
    keep_empty_lines: bool,
) -> CsvTable:
    first_line = next((line for line in text if line.strip()), "")
    text.seek(0)
    reader = csv.reader(_lines(source, text), delimiter=find_delimiter(first_line), strict=True)
    cells = _cells(source, reader)
    first, before = _first_row(cells)
    if first is None:
        raise InputError(f"{source} is empty", hint="write a table into it, one row a line")
    if is_header(first[1]):
        names = tuple(cell.strip() for cell in first[1])
        _check_names(source, names)
        return CsvTable(
            source=source,
            header=names,
            width=len(names),
            rows=_rows(source, cells, len(names), "the header", keep_empty_lines),
        )
    width = len(first[1])
    return CsvTable(
        source=source,
        header=None,
        width=width,
        rows=_rows(source, _chain(before, first, cells), width, "the first row", keep_empty_lines),
    )


def _chain(
    before: list[tuple[int, list[str]]],
    first: tuple[int, list[str]],
    rest: Iterator[tuple[int, list[str]]],
) -> Iterator[tuple[int, list[str]]]:
    yield from before
    yield first
    yield from rest


def _lines(source: Path, text: TextIO) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise InputError(
                f"{source.name}: line {number} holds a NUL byte, which no text does",
                hint=recoding_hint(source, "utf8.csv"),
            )
        yield line


def _cells(source: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row with the line on which it ends."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{source} is not a CSV file: line {reader.line_num}: {error}"
            ) from error
        yield reader.line_num, cells


def _first_row(
    cells: Iterator[tuple[int, list[str]]],
) -> tuple[tuple[int, list[str]] | None, list[tuple[int, list[str]]]]:
    """Return the first row that is not an empty line, and the empty lines before it."""
    before: list[tuple[int, list[str]]] = []
    for line, row in cells:
        if len(row) > 1 or any(map(str.strip, row)):
            return (line, row), before
        before.append((line, row))
    return None, before


def _rows(
    source: Path,
    cells: Iterator[tuple[int, list[str]]],
    width: int,
    first: str,
    keep_empty_lines: bool,
) -> Iterator[TableRow]:
    """Yield the table rows, all of one width; empty ones only where others follow."""
    number = 0
    empty: list[tuple[int, list[str]]] = []
    for line, row in cells:
        if not any(map(str.strip, row)):
            if len(row) > 1 or (width == 1 and keep_empty_lines):
                empty.append((line, row or [""]))
            continue
        for line_of_row, kept in (*empty, (line, row)):
            number += 1
            if len(kept) != width:
                raise InputError(
                    f"{_place(source, number, line_of_row)} has {len(kept)} values, {first} has {width}"
                )
            yield TableRow(number, line_of_row, kept)
        empty.clear()


def _check_names(source: Path, names: Sequence[str]) -> None:
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(
            f"{source.name}: column {repeated!r} stands {names.count(repeated)} times",
            hint="give each column a name of its own",
        )


def _place(source: Path, number: int, line: int) -> str:
    return f"{source.name}: row {number} (line {line})"
