"""Read a CSV of numbers into one array; whatever is wrong is said with its table row and column."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.csv.cells import is_missing, parse_numbers
from loopedge.files.csv.form import CsvForm
from loopedge.files.csv.rows import CsvTable, RowBlock, open_csv
from loopedge.files.csv.spellings import OtherCells
from loopedge.options import option

__all__ = ["NumberTable", "as_whole", "is_header", "read_number_table"]

LARGEST_WHOLE = 2.0**53  # beyond it a float64 stands for several integers


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTable:
    """What a CSV holds.

    Args:
        values: float64 (table rows, columns), NaN where a value is missing; int64 where all are whole.
        header: Names of the columns, where it names them.
    """

    values: npt.NDArray[Any]
    header: tuple[str, ...] | None = None


def as_whole(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers as int64 where all of them are whole."""
    whole = bool((np.abs(values) <= LARGEST_WHOLE).all() and (values == np.round(values)).all())
    return values.astype(np.int64) if whole else values


def read_number_table(
    source: Path,
    *,
    missing: bool,
    ordered: bool,
    form: CsvForm | None = None,
) -> NumberTable:
    """Read a CSV of numbers; a header may come first.

    Args:
        source: The file, as `loopedge.files.csv.rows.open_csv` reads it.
        missing: Whether a cell may stand for a missing value.
        ordered: Whether the table rows are steps of time, so that none may be left out.
        form: How the file is written down; default: as `CsvForm` finds.

    Raises:
        InputError: The file holds no table of numbers.
    """
    with open_csv(
        source,
        form,
        is_header=lambda cells: is_header(cells, ()),
        keep_empty_lines=ordered,
    ) as table:
        header, width = table.header, table.width
        numbers = array("d")
        for block in table.blocks:
            numbers.frombytes(_numbers(table, block, missing=missing).tobytes())
    if not numbers:
        raise InputError(f"{source} holds no rows")
    return NumberTable(values=as_whole(np.frombuffer(numbers).reshape(-1, width)), header=header)


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


def _numbers(table: CsvTable, block: RowBlock, *, missing: bool) -> npt.NDArray[Any]:
    """Return the numbers of table rows: float64 (table rows, columns)."""
    values = np.empty((len(block), table.width))
    wrong: dict[int, int] = {}  # the first place of each table row that holds another text
    for place in range(table.width):
        cells = block.column(place)
        values[:, place], others = parse_numbers(cells, table.form)
        if not missing:
            gone = np.flatnonzero(np.isnan(values[:, place]))
            others += [int(row) for row in gone if not _is_spelled(cells[row])]
        for row in others:
            wrong.setdefault(row, place)
    if wrong:
        row = min(wrong)
        raise _wrong_cell(table, block, row, wrong[row])
    return values


def _wrong_cell(table: CsvTable, block: RowBlock, row: int, place: int) -> InputError:
    cells = block.row(row)
    cell = cells[place].strip()
    column = table.header[place] if table.header is not None else place + 1
    where = f"{table.place(block.first + row, block.lines[row])}, column {column!r}"
    if is_missing(cell, table.form):
        return InputError(f"{where}: the value is missing", hint=_missing_hint(cells))
    found = OtherCells(f"{where}: {cell!r} is not a number", str(column))
    found.add([cell])
    return InputError(found.message, hint=found.hint(table.form, 0))


def _missing_hint(cells: Sequence[str]) -> str:
    if any(cells):
        return f"write the value there, or train with {option('missing', 'indicator')}"
    return "write the value there, or delete the line if no time has passed"
