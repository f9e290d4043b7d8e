"""Read a table into columns of numbers: CSV or Parquet, without holding the file."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopedge.data.chunks import UNNAMED, Chunk, Selection
from loopedge.data.csv_file import csv_chunks
from loopedge.data.parquet_file import parquet_chunks
from loopedge.data.timestamps import TimeOrder
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.files.input_files import check_file
from loopedge.options import option_name

__all__ = ["MOST_LABELS", "Selection", "Table", "Texts", "read_table"]

MOST_LABELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """A column of few different texts.

    Args:
        names: The texts, in the order of their first table rows.
        codes: int32 (table rows,): the place in ``names``; -1 where the text is missing.
    """

    names: tuple[str, ...]
    codes: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of a file, in the order of its table rows.

    Args:
        source: Name of the file.
        names: Columns of numbers, in the order asked for.
        values: float64 (table rows, columns), NaN where a value is missing.
        labels: The column of labels, where it was asked for.
        groups: The column of the names of series, where it was asked for; none is missing.
        first_missing: Table row and column of the first missing number, for people.
    """

    source: str
    names: tuple[str, ...]
    values: Array
    labels: Texts | None = None
    groups: Texts | None = None
    first_missing: str | None = None


def read_table(path: str | Path, selection: Selection) -> Table:
    """Read columns of a table; memory is that of the columns as float64.

    Args:
        path: ``.parquet``, else CSV: UTF-8, with a header.
        selection: The columns.

    Returns:
        The columns.

    Raises:
        InputError: The file, a column, a value or the order cannot be used; the message says where.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    source = check_file(path, needed="a CSV or Parquet file")
    chunks = parquet_chunks if source.suffix.lower() == ".parquet" else csv_chunks
    return _collect(source, chunks(source, selection), selection)


class _Encoder:
    """Turns texts into codes while they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes = array("i")

    def add(self, texts: Sequence[str]) -> Array:
        """Take further texts; return their codes."""
        known = self._known
        codes = array(
            "i",
            [
                -1 if text.lower() in UNNAMED else known.setdefault(text, len(known))
                for text in texts
            ],
        )
        self._codes.extend(codes)
        return np.frombuffer(codes, np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._known)

    def texts(self) -> Texts:
        codes = np.frombuffer(self._codes, np.int32) if self._codes else np.empty(0, np.int32)
        return Texts(names=self.names, codes=codes)


def _collect(source: Path, chunks: Iterator[Chunk], selection: Selection) -> Table:
    # One growing buffer in the order of rows: it becomes the array without a copy.
    numbers, labels, groups = array("d"), _Encoder(), _Encoder()
    order = None if selection.time is None else TimeOrder(selection.time)
    first_missing = None
    for chunk in chunks:
        numbers.frombytes(chunk.numbers.tobytes())
        gone = [(np.isnan(chunk.numbers[:, i]), name) for i, name in enumerate(selection.numbers)]
        if chunk.labels is not None and selection.label is not None:
            labels.add(chunk.labels)
            _check_labels(source, labels, selection.label)
        if chunk.groups is not None:
            _check_groups(chunk, groups.add(chunk.groups), selection)
        if order is not None and (chunk.times is not None or chunk.moments is not None):
            _check_times(chunk, order)
        if first_missing is None:
            first_missing = _first_missing(chunk, gone)
    width = len(selection.numbers)
    values = np.frombuffer(numbers).reshape(-1, width) if numbers else np.empty((0, width))
    return Table(
        source=source.name,
        names=selection.numbers,
        values=values,
        labels=None if selection.label is None else labels.texts(),
        groups=None if selection.group is None else groups.texts(),
        first_missing=first_missing,
    )


def _first_missing(chunk: Chunk, gone: Sequence[tuple[Array, str]]) -> str | None:
    places = [(int(missing.argmax()), name) for missing, name in gone if missing.any()]
    if not places:
        return None
    row, name = min(places, key=lambda place: place[0])
    return f"{chunk.where(row)}, column {name!r}"


def _check_labels(source: Path, labels: _Encoder, column: str) -> None:
    if len(labels.names) > MOST_LABELS:
        raise InputError(
            f"{source.name}: column {column!r} holds more than {MOST_LABELS} different labels",
            hint=f"{option_name('classify')} takes a column of classes; {option_name('target')} forecasts numbers",
        )


def _check_groups(chunk: Chunk, codes: Array, selection: Selection) -> None:
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise InputError(f"{chunk.where(row)}, column {selection.group!r}: the group is missing")


def _check_times(chunk: Chunk, order: TimeOrder) -> None:
    for row, text in enumerate(chunk.times or ()):
        order.check(
            text,
            lambda row=row: chunk.where(row),  # type: ignore[misc]  # mypy cannot infer a default
            group=None if chunk.groups is None else chunk.groups[row],
            moment=None if chunk.moments is None else chunk.moments[row],
        )
