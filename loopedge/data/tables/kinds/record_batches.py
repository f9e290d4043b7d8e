"""What the columns of an Arrow record batch mean as numbers, labels, names of series and times."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.tables.chunks import Chunk, Selection, find_column
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.timeline.arrow import read_moments, stored_times
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.csv.cells import without_stand_ins

__all__ = ["batch_chunk", "check_types"]


def check_types(source: Path, schema: Any, selection: Selection) -> None:
    """Refuse a column that is not there, or of a type that does not fit its purpose.

    Raises:
        InputError: The message names the first.
    """
    for name in selection.all:
        find_column(source, schema.names, name)
    for name in selection.numbers:
        kind = _plain_type(schema.field(name).type)
        if not _is_number(kind):
            raise InputError(
                f"{source.name}: column {name!r} is of type {kind}, a number is needed",
                hint="cast it to float64 before it is written",
            )
    for name in selection.all[len(selection.numbers) :]:
        kind = _plain_type(schema.field(name).type)
        if _is_nested(kind):
            raise InputError(f"{source.name}: column {name!r} is of type {kind}, a value is needed")


def _plain_type(kind: Any) -> Any:
    """Return the type of the values of a column that is stored as a dictionary."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    known = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(matches(kind) for matches in known)


def _is_nested(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(kind) or pa.types.is_null(kind))


def batch_chunk(
    source: Path, first: int, batch: Any, selection: Selection, form: TableFormat
) -> Chunk:
    """Return the table rows of a record batch.

    Args:
        source: The file.
        first: Number of the first table row, from 0.
        batch: A `pyarrow.RecordBatch` of the selected columns.
        selection: What each column is for.
        form: Its ``na_values`` stand for missing values.

    Raises:
        InputError: A value cannot be used; the message names the table row.
    """

    def names(column: str | None) -> list[str | None] | None:
        return None if column is None else _names(batch.column(column), column, source)

    numbers = np.empty((len(batch), len(selection.numbers)))
    for place, name in enumerate(selection.numbers):
        numbers[:, place] = without_stand_ins(_numbers(batch.column(name)), form)
    times, moments, stored = None, None, None
    if selection.time is not None:
        column = batch.column(selection.time)
        stored = stored_times(column.type)
        if stored is None:
            times = _texts(column, selection.time, source)
        else:
            moments = read_moments(
                column,
                stored,
                where=lambda row: (
                    f"{source.name}: row {first + row + 1}, column {selection.time!r}"
                ),
            )
    chunk = Chunk(
        source=source.name,
        first=first,
        numbers=numbers,
        labels=names(selection.label),
        groups=names(selection.group),
        times=times,
        moments=moments,
        stored=stored,
        unnamed=frozenset({"", *form.na_values}),
    )
    chunk.check_size(selection.numbers)
    return chunk


def _numbers(column: Any) -> Array:
    """Return float64 (table rows,), NaN for null."""
    import pyarrow as pa

    wide = column.cast(_plain_type(column.type)).cast(pa.float64(), safe=False)
    array: Array = wide.to_numpy(zero_copy_only=False)
    return array.copy() if not array.flags.writeable else array


def _names(column: Any, name: str, source: Path) -> list[str | None]:
    """Return labels or names of series as texts; None for null, and for a float that is NaN.

    A number is written as a number: whole floats as integers, so that a column of integers with a null, which
    other programs turn into floats, keeps its classes.
    """
    import pyarrow as pa

    plain = column.cast(_plain_type(column.type))
    texts = _cells(plain, name, source)
    if pa.types.is_floating(plain.type):
        numbers = plain.cast(pa.float64()).to_pylist()
        return [
            text if text is None or number is None else _number_name(number, text)
            for text, number in zip(texts, numbers, strict=True)
        ]
    if pa.types.is_decimal(plain.type):
        return [None if text is None else f"{Decimal(text).normalize():f}" for text in texts]
    return texts


def _number_name(number: float, text: str) -> str | None:
    if math.isnan(number):
        return None
    return str(int(number)) if math.isfinite(number) and number == int(number) else text


def _cells(plain: Any, name: str, source: Path) -> list[str | None]:
    """Return the values as texts, None for null."""
    import pyarrow as pa

    try:
        found: list[str | None] = plain.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{source.name}: column {name!r} holds values that are not UTF-8 text",
            hint="write it as text",
        ) from error
    return found


def _texts(column: Any, name: str, source: Path) -> list[str]:
    """Return the values as texts, empty for null."""
    return [text or "" for text in _cells(column.cast(_plain_type(column.type)), name, source)]
