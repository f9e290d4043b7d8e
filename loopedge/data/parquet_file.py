"""Table rows of a Parquet file, a record batch at a time, of the columns that are needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.chunks import Chunk, Selection, find_column
from loopedge.errors import InputError, MissingExtraError
from loopedge.files.arrays import Array

__all__ = ["parquet_chunks"]

ROWS = 65_536


def parquet_chunks(source: Path, selection: Selection) -> Iterator[Chunk]:
    """Yield the table rows of a Parquet file.

    Args:
        source: The file.
        selection: The columns to read; numbers are integers, floats, decimals or booleans.

    Raises:
        InputError: The file or a column cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("reading Parquet", extra="parquet") from error
    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            _check(source, schema, selection)
            first = 0
            for batch in file.iter_batches(ROWS, columns=list(selection.all), use_threads=False):
                yield _chunk(source, first, batch, selection)
                first += len(batch)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is damaged: a name or a value is not UTF-8 text, byte {error.start}"
        ) from error
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source} is not a Parquet file or is damaged: {reason}") from error


def _check(source: Path, schema: Any, selection: Selection) -> None:
    """Refuse a column that is not there, or of a type that does not fit its purpose."""
    for name in selection.all:
        find_column(source, schema.names, name)
    for name in selection.numbers:
        kind = _plain_type(schema.field(name).type)
        if not _is_number(kind):
            raise InputError(
                f"{source.name}: column {name!r} is of type {kind}, a number is needed",
                hint="cast it before it is written",
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


def _chunk(source: Path, first: int, batch: Any, selection: Selection) -> Chunk:
    def texts(name: str) -> list[str]:
        return _texts(batch.column(name), name, source)

    numbers = np.empty((len(batch), len(selection.numbers)))
    for place, name in enumerate(selection.numbers):
        numbers[:, place] = _numbers(batch.column(name))
    times, moments = (
        (None, None) if selection.time is None else _times(batch, selection.time, source)
    )
    chunk = Chunk(
        source=source.name,
        first=first,
        numbers=numbers,
        labels=None if selection.label is None else texts(selection.label),
        groups=None if selection.group is None else texts(selection.group),
        times=times,
        moments=moments,
    )
    chunk.check_size(selection.numbers)
    return chunk


def _numbers(column: Any) -> Array:
    """Return float64 (table rows,), NaN for null."""
    import pyarrow as pa

    wide = column.cast(_plain_type(column.type)).cast(pa.float64(), safe=False)
    array: Array = wide.to_numpy(zero_copy_only=False)
    return array


def _texts(column: Any, name: str, source: Path) -> list[str]:
    """Return the values as texts, empty for null."""
    import pyarrow as pa

    plain = column.cast(_plain_type(column.type))
    try:
        cells = plain.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{source.name}: column {name!r} holds values that are not UTF-8 text",
            hint="write it as text",
        ) from error
    return [text or "" for text in cells.to_pylist()]


def _times(batch: Any, name: str, source: Path) -> tuple[list[str], list[int] | None]:
    """Return times as texts, and those of a type of their own as integers too."""
    import pyarrow as pa

    column = batch.column(name)
    kind = column.type
    if not pa.types.is_temporal(kind):
        return _texts(column, name, source), None
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp(kind.unit))  # in UTC, where it had a zone
    width = pa.int32() if pa.types.is_date32(kind) or pa.types.is_time32(kind) else pa.int64()
    return _texts(column, name, source), column.cast(width).fill_null(0).to_pylist()
