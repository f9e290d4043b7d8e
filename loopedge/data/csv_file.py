"""Columns of a CSV file, a chunk at a time; whatever is wrong is said with its table row and column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loopedge.data.chunks import Chunk, Selection, find_column
from loopedge.errors import InputError
from loopedge.files.array_csv import is_header
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
    """Yield the table rows of a CSV file with a header, or of one without where the selection allows it.

    Args:
        source: The file, as `loopedge.files.csv_rows.open_csv` reads it.
        selection: The columns to read.

    Raises:
        InputError: The file, a column or a value cannot be used.
    """
    with open_csv(source, is_header=lambda cells: _is_header(cells, selection)) as table:
        if table.header is None:  # no column of times either: the rows' own order is taken
            selection = replace(selection, time=None)
        header = selection.all if table.header is None else table.header
        if table.header is None and table.width != len(header):
            needed = "1 column is" if len(header) == 1 else f"{len(header)} columns are"
            raise InputError(
                f"{source} has no header and {table.width} columns, without a header {needed} needed",
                hint=f"let the first line name the columns: {','.join(header)}",
            )
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


def _is_header(cells: Sequence[str], selection: Selection) -> bool:
    alone = selection.headerless and selection.label is None and selection.group is None
    return not alone or is_header(cells, selection.numbers)


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
