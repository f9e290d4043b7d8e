"""Table rows of Parquet and Arrow files, a record batch at a time, of the columns that are needed."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loopedge.data.tables.chunks import Chunk, Selection
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.kinds.record_batches import batch_chunk, check_types
from loopedge.data.tables.wide import wide_finding
from loopedge.errors import InputError, MissingExtraError

__all__ = ["arrow_chunks", "arrow_header", "parquet_chunks", "parquet_header"]

ROWS = 65_536

Batches = Callable[[list[str]], Iterator[Any]]
"""Yields record batches of the columns that are named."""
Open = Callable[[Path], contextlib.AbstractContextManager[tuple[Any, Batches]]]
"""Opens a file: its schema and its batches."""


def parquet_chunks(
    source: Path, selection: Selection, form: TableFormat, findings: list[Finding]
) -> Iterator[Chunk]:
    """Yield the table rows of a Parquet file.

    Args:
        source: The file.
        selection: The columns to read; numbers are integers, floats, decimals or booleans.
        form: How the table is written down.
        findings: Gets what a person should know of the file.

    Raises:
        InputError: The file or a column cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    with _reading(source, "Parquet"):
        yield from _chunks(source, selection, form, findings, _open_parquet)


def arrow_chunks(
    source: Path, selection: Selection, form: TableFormat, findings: list[Finding]
) -> Iterator[Chunk]:
    """Yield the table rows of an Arrow file (Feather version 2) or an Arrow stream, as `parquet_chunks` does."""
    with _reading(source, "Arrow"):
        yield from _chunks(source, selection, form, findings, _open_arrow)


def parquet_header(source: Path, columns: Sequence[str], form: TableFormat) -> tuple[str, ...]:
    """Return the names of the columns of a Parquet file; it has no need to know which are looked for.

    Raises:
        InputError: The file cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    with _reading(source, "Parquet"), _open_parquet(source) as (schema, _):
        return tuple(schema.names)


def arrow_header(source: Path, columns: Sequence[str], form: TableFormat) -> tuple[str, ...]:
    """Return the names of the columns of an Arrow file or stream, as `parquet_header` does."""
    with _reading(source, "Arrow"), _open_arrow(source) as (schema, _):
        return tuple(schema.names)


def _chunks(
    source: Path, selection: Selection, form: TableFormat, findings: list[Finding], open_file: Open
) -> Iterator[Chunk]:
    with open_file(source) as (schema, batches):
        check_types(source, schema, selection)
        findings += wide_finding(schema.names, selection.numbers)
        first = 0
        for whole in batches(list(selection.all)):
            for start in range(
                0, len(whole), ROWS
            ):  # a batch of an Arrow file may hold a whole table
                batch = whole.slice(start, ROWS)
                yield batch_chunk(source, first, batch, selection, form)
                first += len(batch)


@contextlib.contextmanager
def _open_parquet(source: Path) -> Iterator[tuple[Any, Batches]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        yield (
            file.schema_arrow,
            lambda names: file.iter_batches(ROWS, columns=names, use_threads=False),
        )


@contextlib.contextmanager
def _open_arrow(source: Path) -> Iterator[tuple[Any, Batches]]:
    import pyarrow as pa

    with pa.OSFile(str(source)) as content:
        if content.read(6) == b"ARROW1":
            content.seek(0)
            with pa.ipc.open_file(content) as file:
                yield file.schema, lambda names: _file_batches(source, file.schema, names)
            return
        content.seek(0)
        with pa.ipc.open_stream(content) as stream:
            yield stream.schema, lambda names: (_checked(batch.select(names)) for batch in stream)


def _file_batches(source: Path, schema: Any, names: list[str]) -> Iterator[Any]:
    """Yield the batches of an Arrow file; of the other columns nothing is read."""
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(
        included_fields=[schema.get_field_index(name) for name in names], use_threads=False
    )
    with pa.OSFile(str(source)) as content, pa.ipc.open_file(content, options=options) as file:
        for number in range(file.num_record_batches):
            yield _checked(file.get_batch(number))


def _checked(batch: Any) -> Any:
    """Return a record batch whose offsets and texts were checked: an Arrow file is memory as it is, and pyarrow trusts it."""
    batch.validate(full=True)
    return batch


@contextlib.contextmanager
def _reading(source: Path, kind: str) -> Iterator[None]:
    """Say in one line why a file cannot be read."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError(f"reading {kind}", extra="parquet") from error
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{source} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is damaged: a name or a value is not UTF-8 text, byte {error.start}"
        ) from error
    except (pa.ArrowException, OSError) as error:
        article = "a Parquet" if kind == "Parquet" else "an Arrow"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source} is not {article} file or is damaged: {reason}") from error
