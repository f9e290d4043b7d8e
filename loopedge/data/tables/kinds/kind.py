"""Which reader a table needs, by what it holds."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from loopedge.data.tables.chunks import Chunk, Selection
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.kinds.arrow_files import (
    arrow_chunks,
    arrow_header,
    parquet_chunks,
    parquet_header,
)
from loopedge.data.tables.kinds.csv_file import csv_chunks, csv_header
from loopedge.files.kinds import Readable, find_kind, other_kind

__all__ = ["CSV", "Kind", "kind_of"]


class Kind(NamedTuple):
    """What reads a kind of file.

    Args:
        chunks: Yields the table rows of the columns that are selected, and adds what a person should know to a list.
        header: Returns the names of the columns, None where a CSV names none; it is told which columns are looked for.
    """

    chunks: Callable[[Path, Selection, TableFormat, list[Finding]], Iterator[Chunk]]
    header: Callable[[Path, Sequence[str], TableFormat], tuple[str, ...] | None]


CSV = Kind(csv_chunks, csv_header)
PARQUET = Kind(parquet_chunks, parquet_header)
ARROW = Kind(arrow_chunks, arrow_header)
KINDS: dict[Readable, Kind] = {
    "parquet": PARQUET,
    "arrow": ARROW,
    "arrow-stream": ARROW,
    "gzip": CSV,
}
ENDINGS = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
    ".ipc": ARROW,
}
"""What is meant by a name, where the content does not say what it is: the error is of that kind then."""


def kind_of(source: Path) -> Kind:
    """Return what reads a table: its content says so, and for damaged files their name.

    Raises:
        InputError: The file is known to be no table, or cannot be read.
    """
    kind = find_kind(source)
    if kind is not None:
        return KINDS[kind]
    wrong = other_kind(source, "a CSV or Parquet file")
    if wrong is not None:
        raise wrong
    return ENDINGS.get(source.suffix.lower(), CSV)
