"""Read number columns of a CSV file; whatever is wrong is told with its row and column."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopedge.data.task import Array
from loopedge.data.timestamps import check_ascending
from loopedge.errors import InputError

__all__ = ["Columns", "read_columns"]

MISSING = {"", "?", "-", "na", "n/a", "nan", "null", "none"}
DELIMITERS = ",;\t"
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Number columns of a file.

    Args:
        names: In the order asked for.
        values: float64 (rows, columns); where a value was missing, interpolated.
        observed: bool (rows, columns): False where a value was missing.
    """

    names: tuple[str, ...]
    values: Array
    observed: Array


def read_columns(
    path: str | Path,
    names: Sequence[str],
    *,
    interpolate: bool = False,
    time_column: str | None = None,
) -> Columns:
    """Read columns of a CSV file with a header; commas, semicolons or tabs separate.

    Args:
        path: The file, UTF-8.
        names: Columns to read, by their names in the header.
        interpolate: Fill missing values along a straight line between their neighbours in the
            column, and with the nearest value at its ends.
        time_column: Column whose times must ascend; default: the order is taken as it is.

    Returns:
        The columns.

    Raises:
        InputError: The file, a column, a value or the order cannot be used; the message says where.
    """
    source = Path(path)
    header, rows = _read_table(source)
    indices = [_find(source, header, name) for name in names]
    time_index = None if time_column is None else _find(source, header, time_column)
    values = np.empty((len(rows), len(indices)))
    for row, (line, cells) in enumerate(rows):
        where = _where(source, row, line)
        if len(cells) != len(header):
            raise InputError(f"{where} has {len(cells)} values, the header has {len(header)}")
        for place, (index, name) in enumerate(zip(indices, names, strict=True)):
            values[row, place] = _number(cells[index], f"{where}, column {name!r}")
    if time_column is not None and time_index is not None:
        times = [
            (_where(source, r, line), cells[time_index]) for r, (line, cells) in enumerate(rows)
        ]
        check_ascending(times, time_column)
    observed = ~np.isnan(values)
    _check_missing(source, names, rows, observed, interpolate=interpolate)
    if interpolate:
        at = np.arange(len(values))
        for place in range(len(names)):
            known = observed[:, place]
            values[:, place] = np.interp(at, at[known], values[known, place])
    return Columns(names=tuple(names), values=values, observed=observed)


def _read_table(source: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and, with its line number, every row that is not blank."""
    if source.is_dir():
        raise InputError(f"{source} is a folder, a CSV file is needed")
    if not source.exists():
        raise InputError(f"{source} does not exist")
    try:
        with source.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}") from error
    except csv.Error as error:
        raise InputError(f"{source} is no CSV file: {error}") from error
    if not any(header):
        raise InputError(f"{source} is empty", hint="the first line must name the columns")
    return header, rows


def _where(source: Path, row: int, line: int) -> str:
    return f"{source.name}: row {row + 1} (line {line})"


def _find(source: Path, header: list[str], name: str) -> int:
    if header.count(name) > 1:
        raise InputError(f"{source.name}: column {name!r} stands {header.count(name)} times")
    if name not in header:
        raise InputError(
            f"{source.name}: no column {name!r}; the columns are {', '.join(header)}",
            hint=f"name one of them, for example {header[-1]!r}",
        )
    return header.index(name)


def _number(cell: str, where: str) -> float:
    """Return the number in a cell, NaN where the cell stands for a missing value."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or "_" in text:  # Python reads 1_000 as a number, no table means it
        raise InputError(f"{where}: {text!r} is not a number")
    if abs(value) > LARGEST:
        raise InputError(f"{where}: {text!r} is too large for float32")
    return value


def _check_missing(
    source: Path,
    names: Sequence[str],
    rows: list[tuple[int, list[str]]],
    observed: Array,
    *,
    interpolate: bool,
) -> None:
    if observed.all():
        return
    for place, name in enumerate(names):
        if not observed[:, place].any():
            raise InputError(f"{source.name}: column {name!r} holds no value at all")
    if not interpolate:
        row, place = np.argwhere(~observed)[0]
        count = int((~observed).sum())
        more = f" ({count} values are missing altogether)" if count > 1 else ""
        raise InputError(
            f"{_where(source, int(row), rows[row][0])}, column {names[place]!r}: "
            f"the value is missing{more}",
            hint="add --interpolate to fill gaps along a straight line",
        )
