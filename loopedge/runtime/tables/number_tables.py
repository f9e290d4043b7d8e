"""Tables of numbers as arrays, for models that know no table: every column, in the order of the file."""

from pathlib import Path

import numpy as np

from loopedge.data.tables.chunks import Selection
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.kinds.kind import CSV, kind_of
from loopedge.data.tables.reading import read_table
from loopedge.errors import InputError
from loopedge.files.arrays import ArrayFile
from loopedge.files.csv.numbers import as_whole
from loopedge.files.input_files import check_file
from loopedge.files.table_names import is_table

__all__ = ["holds_columns", "read_columns"]


def holds_columns(path: str | Path) -> bool:
    """Tell whether a file is Parquet or Arrow, by its content, under the name of a table."""
    source = Path(path)
    return is_table(source) and source.is_file() and kind_of(source) is not CSV


def read_columns(path: str | Path, name: str, *, rank: int, form: TableFormat) -> ArrayFile:
    """Read all columns of a Parquet or Arrow file into one array, NaN where a value is missing.

    Args:
        path: The file.
        name: What the array is called.
        rank: Axes that the input of that name has: of three a table row is a position, (1, rows, columns); else a sample.
        form: What else stands for a missing value.

    Raises:
        InputError: The file cannot be read, or a column holds no numbers.
        MissingExtraError: pyarrow is not installed.
    """
    source = check_file(path, needed="a Parquet file")
    header = kind_of(source).header(source, (), form) or ()
    values = read_table(source, Selection(numbers=header), form).values
    if not values.size:
        raise InputError(f"{source} holds no rows")
    values = as_whole(values)
    return ArrayFile(arrays={name: values[np.newaxis] if rank == 3 else values}, header=header)
