"""Rows of a CSV file, a chunk at a time; whatever is wrong is told with its row and column."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from loopedge.data.chunks import MISSING, Chunk, Selection, find_column
from loopedge.data.text_files import first_bad_byte
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.cells import find_delimiter

__all__ = ["csv_chunks"]

ROWS = 4096
"""Rows that are held as Python texts at a time."""


@dataclass(slots=True)
class Wrong:
    """Cells of a column that are no numbers: the first, and how many there are."""

    told: str
    count: int = 0


def csv_chunks(source: Path, selection: Selection) -> Iterator[Chunk]:
    """Yield the rows of a CSV file with a header; commas, semicolons or tabs separate.

    Args:
        source: The file, UTF-8.
        selection: The columns to read.

    Raises:
        InputError: The file, a column or a value cannot be used.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as text:
            yield from _read(source, text, selection)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is no UTF-8 text: byte {first_bad_byte(source)}",
            hint=f"iconv -f latin1 -t utf-8 {source} > utf8.csv",
        ) from error
    except csv.Error as error:
        raise InputError(f"{source} is no CSV file: {error}") from error


def _read(source: Path, text: TextIO, selection: Selection) -> Iterator[Chunk]:
    first_line = text.readline()
    text.seek(0)
    delimiter = find_delimiter(first_line)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = [cell.strip() for cell in next(reader, [])]
    if not any(header):
        raise InputError(f"{source} is empty", hint="the first line must name the columns")
    places = {name: find_column(source, header, name) for name in selection.all}
    wrong: dict[str, Wrong] = {}
    rows: list[list[str]] = []
    lines: list[int] = []
    first = 0
    for line, cells in _rows(reader, len(header)):
        rows.append(cells)
        lines.append(line)
        if len(cells) != len(header):
            where = f"{source.name}: row {first + len(rows)} (line {line})"
            raise InputError(f"{where} has {len(cells)} values, the header has {len(header)}")
        if len(rows) == ROWS:
            yield _chunk(source, first, rows, lines, selection, places, wrong)
            first += len(rows)
            rows, lines = [], []
    if rows:
        yield _chunk(source, first, rows, lines, selection, places, wrong)
    for found in wrong.values():
        more = f" ({found.count} values of the column are no numbers)" if found.count > 1 else ""
        raise InputError(found.told + more)


def _rows(reader: Any, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with its line: without empty lines, and without empty rows at the end.

    An empty row before others is a row whose values are missing: without it time would shift. Where
    there is one column, such a row is an empty line.
    """
    empty: list[tuple[int, list[str]]] = []
    for cells in reader:
        if not any(map(str.strip, cells)):
            if columns == 1 or len(cells) > 1:
                empty.append((reader.line_num, cells or [""]))
            continue
        yield from empty
        empty.clear()
        yield reader.line_num, cells


def _chunk(
    source: Path,
    first: int,
    rows: list[list[str]],
    lines: list[int],
    selection: Selection,
    places: dict[str, int],
    wrong: dict[str, Wrong],
) -> Chunk:
    def texts(name: str | None) -> list[str] | None:
        return None if name is None else [cells[places[name]].strip() for cells in rows]

    numbers = np.empty((len(rows), len(selection.numbers)))
    for column, name in enumerate(selection.numbers):
        cells = [cells[places[name]] for cells in rows]
        values, others = _numbers(cells)
        numbers[:, column] = values
        if others:
            where = f"{source.name}: row {first + others[0] + 1} (line {lines[others[0]]})"
            text = cells[others[0]].strip()
            told = f"{where}, column {name!r}: {text!r} is not a number"
            wrong.setdefault(name, Wrong(told)).count += len(others)
    chunk = Chunk(
        source=source.name,
        first=first,
        lines=lines,
        numbers=numbers,
        labels=texts(selection.label),
        groups=texts(selection.group),
        times=texts(selection.time),
    )
    chunk.check_size(selection.numbers, lambda row, name: rows[row][places[name]].strip())
    return chunk


def _numbers(cells: Sequence[str]) -> tuple[Array, list[int]]:
    """Return the numbers in cells, NaN where one is missing, and the places of other texts."""
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        pass
    else:
        if "_" not in "".join(cells):
            return values, []
    values = np.full(len(cells), math.nan)
    others = []
    for place, cell in enumerate(cells):
        text = cell.strip()
        if text.lower() in MISSING:
            continue
        try:
            values[place] = float(text)
        except ValueError:
            others.append(place)
            continue
        if "_" in text:  # Python reads 1_000, no table means it
            others.append(place)
    return values, others
