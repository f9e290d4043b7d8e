"""Read a CSV of numbers into one array; whatever is wrong is said with its table row and column."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.cells import is_missing, number_hint, parse_numbers
from loopedge.files.csv_rows import CsvTable, TableRow, open_csv
from loopedge.options import option

__all__ = ["NumberTable", "is_header", "read_number_table"]

LARGEST_WHOLE = 2.0**53  # beyond it a float64 stands for several integers


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTable:
    """What a CSV holds.

    Args:
        values: float64 (table rows, columns), NaN where a value is missing; int64 where all are whole.
        dropped: Columns of the header that were not asked for.
    """

    values: npt.NDArray[Any]
    dropped: tuple[str, ...] = ()


def read_number_table(
    source: Path, *, missing: bool, ordered: bool, columns: Sequence[str] = ()
) -> NumberTable:
    """Read a CSV of numbers; a header may come first.

    Args:
        source: The file, as `loopedge.files.csv_rows.open_csv` reads it.
        missing: Whether a cell may stand for a missing value.
        ordered: Whether the table rows are steps of time, so that none may be left out.
        columns: Names of the columns in the order to return; without a header the file must have
            this order. Default: all columns, in the order of the file.

    Raises:
        InputError: The file holds no table of numbers, or its header lacks a column.
    """
    with open_csv(
        source,
        is_header=lambda cells: is_header(cells, columns),
        keep_empty_lines=ordered,
    ) as table:
        names = table.header or tuple(str(place + 1) for place in range(table.width))
        places = list(range(table.width))
        if table.header is not None and columns:
            places = _find_places(source, table.header, columns)
        numbers = array("d")
        for row in table.rows:
            numbers.frombytes(_numbers(table, row, places, missing=missing).tobytes())
    if not numbers:
        raise InputError(f"{source} holds no rows")
    values = np.frombuffer(numbers).reshape(-1, len(places))
    whole = bool((np.abs(values) <= LARGEST_WHOLE).all() and (values == np.round(values)).all())
    return NumberTable(
        values=values.astype(np.int64) if whole else values,
        dropped=tuple(name for place, name in enumerate(names) if place not in places),
    )


def is_header(cells: Sequence[str], columns: Sequence[str]) -> bool:
    """Tell names from values; names may be numbers, such as years, where they are known."""
    names = {cell.strip() for cell in cells}
    if columns and names.issuperset(columns):
        return True
    return not any(map(_is_number, cells)) and not all(map(is_missing, cells))


def _is_number(cell: str) -> bool:
    """Tell whether a cell holds a number; a spelled-out NaN is one here, an empty cell is none."""
    _, others = parse_numbers([cell])
    return not others and _is_spelled(cell)


def _is_spelled(cell: str) -> bool:
    """Tell whether a cell that is not other text holds a number, NaN among them."""
    return not is_missing(cell) or "nan" in cell.lower()


def _find_places(source: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    absent = [name for name in columns if name not in header]
    if absent:
        raise InputError(
            f"{source}: the header lacks {', '.join(map(repr, absent))}; the model was trained on "
            f"{', '.join(columns)}",
            hint="name the columns as in training, or leave the header out and keep this order",
        )
    return [list(header).index(name) for name in columns]


def _numbers(
    table: CsvTable, row: TableRow, places: Sequence[int], *, missing: bool
) -> npt.NDArray[Any]:
    """Return the numbers of a table row in the order of ``places``: float64 (columns,)."""
    cells = [row.cells[place] for place in places]
    values, others = parse_numbers(cells)
    if not missing:
        gone = np.flatnonzero(np.isnan(values))
        others = sorted({*others, *(int(at) for at in gone if not _is_spelled(cells[at]))})
    if others:
        at = others[0]
        cell = cells[at].strip()
        column = table.header[places[at]] if table.header is not None else places[at] + 1
        place = f"{table.place(row.number, row.line)}, column {column!r}"
        if is_missing(cell):
            raise InputError(f"{place}: the value is missing", hint=_missing_hint(row))
        raise InputError(f"{place}: {cell!r} is not a number", hint=number_hint(cell))
    return values


def _missing_hint(row: TableRow) -> str:
    if any(row.cells):
        return f"write the value there, or train with {option('missing', 'indicator')}"
    return "write the value there, or delete the line if no time has passed"
