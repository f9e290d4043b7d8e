"""Columns of a CSV file, a chunk at a time; whatever is wrong is said with its table row and column."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopedge.data.chunks import Chunk, Selection, find_column
from loopedge.errors import InputError
from loopedge.files.cells import number_hint, parse_numbers
from loopedge.files.csv_rows import CsvTable, TableRow, open_csv

__all__ = ["csv_chunks"]

ROWS = 4096
"""Table rows that are held as Python texts at a time."""


@dataclass(slots=True)
class WrongCells:
    """Cells of a column that are not numbers: what the message says of the first, and how many there are."""

    message: str
    hint: str | None
    count: int = 0


def csv_chunks(source: Path, selection: Selection) -> Iterator[Chunk]:
    """Yield the table rows of a CSV file with a header.

    Args:
        source: The file, as `loopedge.files.csv_rows.open_csv` reads it.
        selection: The columns to read.

    Raises:
        InputError: The file, a column or a value cannot be used.
    """
    with open_csv(source) as table:
        header = table.header or ()
        if not any(header):
            raise InputError(
                f"{source} names no column", hint="the first line must name the columns"
            )
        places = {name: find_column(source, header, name) for name in selection.all}
        wrong: dict[str, WrongCells] = {}
        held: list[TableRow] = []
        for row in table.rows:
            held.append(row)
            if len(held) == ROWS:
                yield _chunk(table, held, selection, places, wrong)
                held = []
        if held:
            yield _chunk(table, held, selection, places, wrong)
    for found in wrong.values():
        more = f" ({found.count} values of the column are not numbers)" if found.count > 1 else ""
        raise InputError(found.message + more, hint=found.hint)


def _chunk(
    table: CsvTable,
    rows: list[TableRow],
    selection: Selection,
    places: dict[str, int],
    wrong: dict[str, WrongCells],
) -> Chunk:
    def texts(name: str | None) -> list[str] | None:
        return None if name is None else [row.cells[places[name]].strip() for row in rows]

    numbers = np.empty((len(rows), len(selection.numbers)))
    for column, name in enumerate(selection.numbers):
        cells = [row.cells[places[name]] for row in rows]
        numbers[:, column], others = parse_numbers(cells)
        if others:
            row, text = rows[others[0]], cells[others[0]].strip()
            place = table.place(row.number, row.line)
            message = f"{place}, column {name!r}: {text!r} is not a number"
            wrong.setdefault(name, WrongCells(message, number_hint(text))).count += len(others)
    chunk = Chunk(
        source=table.source.name,
        first=rows[0].number - 1,
        lines=[row.line for row in rows],
        numbers=numbers,
        labels=texts(selection.label),
        groups=texts(selection.group),
        times=texts(selection.time),
    )
    chunk.check_size(selection.numbers, lambda row, name: rows[row].cells[places[name]].strip())
    return chunk
