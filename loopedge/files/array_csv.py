"""Read a CSV of numbers into one array; whatever is wrong is told with its line."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.cells import find_delimiter, is_missing

__all__ = ["NumberTable", "read_number_table"]

LARGEST_WHOLE = 2.0**53  # beyond it a float64 stands for several integers

Line = tuple[int, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTable:
    """What a CSV holds.

    Args:
        values: float64 (rows, columns), NaN where a value is missing; int64 where all are whole.
        dropped: Columns of the header that were not asked for.
    """

    values: npt.NDArray[Any]
    dropped: tuple[str, ...] = ()


def read_number_table(
    source: Path, *, missing: bool, ordered: bool, columns: Sequence[str] = ()
) -> NumberTable:
    """Read a CSV of numbers; commas, semicolons or tabs separate, a header may come first.

    Args:
        source: The file, UTF-8.
        missing: Whether a cell may stand for a missing value.
        ordered: Whether the rows are steps of time, so that none may be left out.
        columns: Names of the columns in the order to return; without a header the file must have
            this order. Default: all columns, in the order of the file.

    Raises:
        InputError: The file holds no table of numbers, or its header lacks a column.
    """
    lines = _without_blanks(source, _read_lines(source), missing=missing, ordered=ordered)
    header = lines[0][1] if lines and _is_header(lines[0][1], columns) else None
    rows = lines if header is None else lines[1:]
    if not rows:
        raise InputError(f"{source} holds no rows")
    width = len(rows[0][1] if header is None or not columns else header)
    places = list(range(width))
    dropped: tuple[str, ...] = ()
    if header is not None and columns:
        names = [cell.strip() for cell in header]
        places = _find_places(source, names, columns)
        dropped = tuple(name for place, name in enumerate(names) if place not in places)
    values = []
    for line, row in rows:
        if len(row) != width:
            others = "the others" if header is None or not columns else "the header"
            raise InputError(f"{source}: row {line} has {len(row)} columns, {others} {width}")
        values.append(_numbers(source, line, [row[place] for place in places], missing=missing))
    table = np.array(values)
    whole = bool((np.abs(table) <= LARGEST_WHOLE).all() and (table == np.round(table)).all())
    return NumberTable(values=table.astype(np.int64) if whole else table, dropped=dropped)


def _read_lines(source: Path) -> list[Line]:
    """Return the cells of each row, with the line on which it ends."""
    try:
        text = source.read_bytes().decode("utf-8-sig")
        first_line = text.lstrip("\r\n").split("\n", 1)[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(first_line))
        return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source} is not a CSV file: {error}") from error


def _without_blanks(source: Path, lines: list[Line], *, missing: bool, ordered: bool) -> list[Line]:
    """Leave out blank lines, but where there is one column: there they are empty cells."""

    def is_blank(row: list[str]) -> bool:
        return len(row) < 2 and not any(map(str.strip, row))

    while lines and is_blank(lines[-1][1]):
        lines.pop()
    single = bool(lines) and max(len(row) for _, row in lines) == 1
    if not (single and ordered):
        return [(line, row) for line, row in lines if not is_blank(row)]
    blank = next((line for line, row in lines if is_blank(row)), None)
    if blank is not None and not missing:
        raise InputError(
            f"{source}: row {blank} is empty: a value is missing",
            hint="write the value there, or delete the line if no time has passed",
        )
    return [(line, row or [""]) for line, row in lines]


def _is_header(row: list[str], columns: Sequence[str]) -> bool:
    """Tell names from values; names may be numbers, such as years, where they are known."""
    names = {cell.strip() for cell in row}
    if columns and names.issuperset(columns):
        return True
    return not any(map(_is_number, row)) and not all(map(is_missing, row))


def _find_places(source: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    absent = [name for name in columns if name not in header]
    if absent:
        raise InputError(
            f"{source}: the header lacks {', '.join(map(repr, absent))}; the model was trained on "
            f"{', '.join(columns)}",
            hint="name the columns as in training, or leave the header out and keep this order",
        )
    repeated = next((name for name in columns if list(header).count(name) > 1), None)
    if repeated is not None:
        raise InputError(
            f"{source}: column {repeated!r} stands {list(header).count(repeated)} times"
        )
    return [list(header).index(name) for name in columns]


def _numbers(source: Path, line: int, cells: Sequence[str], *, missing: bool) -> list[float]:
    known = ["nan" if missing and is_missing(cell) else cell for cell in cells]
    wrong = next((cell for cell in known if not _is_number(cell)), None)
    if wrong is not None:
        raise InputError(f"{source}: row {line}: {wrong!r} is not a number")
    return [float(cell) for cell in known]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000, no table means it
