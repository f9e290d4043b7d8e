"""Read a table into columns of numbers: CSV, Parquet or Arrow, without holding the file."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopedge.data.tables.chunks import Chunk, Selection
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import read_header
from loopedge.data.tables.kinds.kind import kind_of
from loopedge.data.tables.texts import Encoder, Texts, alike_finding
from loopedge.data.tables.timeline.order import check_ascending
from loopedge.data.tables.timeline.places import Places
from loopedge.data.tables.timeline.timestamps import TimeReader
from loopedge.data.tables.timeline.unread import unread_times
from loopedge.data.tables.times import Times
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.input_files import check_file
from loopedge.options import option_name

__all__ = [
    "MOST_LABELS",
    "Selection",
    "Table",
    "Texts",
    "find_unread_times",
    "read_table",
]

MOST_LABELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of a file, in the order of its table rows.

    Args:
        source: Name of the file.
        names: Columns of numbers, in the order asked for.
        values: float64 (table rows, columns), NaN where a value is missing.
        places: Where the table rows stand in the file.
        labels: The column of labels, where it was asked for.
        groups: The column of the names of series, where it was asked for; none is missing.
        first_missing: Table row and column of the first missing number, for people.
        times: The column of times, where it was asked for; they ascend in each series.
        findings: What a person should know of it.
    """

    source: str
    names: tuple[str, ...]
    values: Array
    places: Places
    labels: Texts | None = None
    groups: Texts | None = None
    first_missing: str | None = None
    times: Times | None = None
    findings: tuple[Finding, ...] = ()


def read_table(path: str | Path, selection: Selection, form: TableFormat | None = None) -> Table:
    """Read columns of a table; memory is that of the columns as float64.

    Args:
        path: Parquet, an Arrow file or stream (Feather version 2), or CSV with a header, plain or compressed with gzip;
            its content says which, not its name.
        selection: The columns.
        form: How the table is written down; default: as `TableFormat` finds.

    Returns:
        The columns.

    Raises:
        InputError: The file, a column, a value or the order cannot be used; the message says where.
        MissingExtraError: The file is Parquet or Arrow and pyarrow is not installed.
    """
    source = check_file(path, needed="a CSV or Parquet file")
    form = form or TableFormat()
    findings: list[Finding] = []
    chunks = kind_of(source).chunks(source, selection, form, findings)
    table = _collect(source, chunks, selection, form, findings)
    check_ascending(table, lambda: _OtherColumns(source, form))
    return table


def find_unread_times(
    path: str | Path, selection: Selection, form: TableFormat | None = None
) -> tuple[Finding, ...]:
    """Say which column holds times that are not read, as `loopedge.data.tables.timeline.unread.unread_times`.

    Args:
        path: As `read_table`, like the others.
        selection: The columns that are read.
        form: How the table is written down.
    """
    if selection.time is not None:
        return ()
    source, form = Path(path), form or TableFormat()

    def read(other: Selection) -> Iterator[Chunk]:
        return kind_of(source).chunks(source, other, form, [])

    return unread_times(read_header(source, (), form) or (), selection, form, read)


class _OtherColumns:
    """Columns of a file, one at a time, as names of series."""

    def __init__(self, source: Path, form: TableFormat) -> None:
        self.path, self._form = source, form
        self._names = read_header(source, (), form) or ()

    def names(self) -> Sequence[str]:
        return self._names

    def codes(self, name: str, *, rows: int | None = None) -> Array | None:
        encoder, seen = Encoder(), 0
        selection = Selection(numbers=(), group=name)
        for chunk in kind_of(self.path).chunks(self.path, selection, self._form, []):
            codes = encoder.add(chunk.groups or (), chunk.unnamed)
            seen += len(codes)
            if (codes < 0).any() or len(encoder.names) > max(MOST_LABELS, seen // 2):
                return None
            if rows is not None and seen >= rows:
                break
        return encoder.texts().codes


def _collect(
    source: Path,
    chunks: Iterator[Chunk],
    selection: Selection,
    form: TableFormat,
    findings: list[Finding],
) -> Table:
    # One growing buffer in the order of rows: it becomes the array without a copy.
    numbers, labels, groups = array("d"), Encoder(), Encoder()
    places = Places(source.name)
    clock = None if selection.time is None else TimeReader(selection.time, form, places)
    first_missing = None
    for chunk in chunks:
        places.add(chunk)
        numbers.frombytes(chunk.numbers.tobytes())
        gone = [(np.isnan(chunk.numbers[:, i]), name) for i, name in enumerate(selection.numbers)]
        if chunk.labels is not None and selection.label is not None:
            _add_labels(source, chunk, labels, selection.label)
        if chunk.groups is not None:
            _check_groups(chunk, groups.add(chunk.groups, chunk.unnamed), selection)
        if clock is not None:
            clock.add(chunk)
        if first_missing is None:
            first_missing = _first_missing(chunk, gone)
    width = len(selection.numbers)
    values = np.frombuffer(numbers).reshape(-1, width) if numbers else np.empty((0, width))
    series = None if selection.group is None else groups.texts()
    times: Times | None = None
    of_times: tuple[Finding, ...] = ()
    if clock is not None:
        times, of_times = clock.finish(None if series is None else series.codes)
    return Table(
        source=source.name,
        names=selection.numbers,
        values=values,
        labels=None if selection.label is None else labels.texts(),
        groups=series,
        first_missing=first_missing,
        times=times,
        places=places,
        findings=(*findings, *_of_texts(labels, groups, selection), *of_times),
    )


def _of_texts(labels: Encoder, groups: Encoder, selection: Selection) -> Iterator[Finding]:
    """Say what is missing, and what may be meant to be the same."""
    if selection.label is not None:
        yield from labels.left_out(selection.label)
        yield from alike_finding(labels.names, selection.label, "labels")
    if selection.group is not None:
        yield from alike_finding(groups.names, selection.group, "series")


def _first_missing(chunk: Chunk, gone: Sequence[tuple[Array, str]]) -> str | None:
    places = [(int(missing.argmax()), name) for missing, name in gone if missing.any()]
    if not places:
        return None
    row, name = min(places, key=lambda place: place[0])
    return f"{chunk.where(row)}, column {name!r}"


def _add_labels(source: Path, chunk: Chunk, labels: Encoder, column: str) -> None:
    codes = labels.add(chunk.labels or (), chunk.unnamed)
    if labels.first_missing is None and (codes < 0).any():
        labels.first_missing = chunk.where(int((codes < 0).argmax()))
    if len(labels.names) > MOST_LABELS:
        raise InputError(
            f"{source.name}: column {column!r} holds more than {MOST_LABELS} different labels",
            hint=f"{option_name('classify')} takes a column of classes; {option_name('target')} forecasts numbers",
        )


def _check_groups(chunk: Chunk, codes: Array, selection: Selection) -> None:
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        text = chunk.groups[row] if chunk.groups else None
        shown = f" ({text!r})" if text else ""
        raise InputError(
            f"{chunk.where(row)}, column {selection.group!r}: the group is missing{shown}",
            hint="name the series there, or leave the row out",
        )
