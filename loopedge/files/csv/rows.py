"""Read a CSV file strictly, some table rows at a time: tables to train on and arrays to run on alike.

A table is a rectangle of cells, separated by commas, semicolons or tabs. Whatever is not such a table is one error
that says the table row and the line.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from loopedge.errors import InputError
from loopedge.files.csv.cells import find_delimiter
from loopedge.files.csv.form import CsvForm, form_option
from loopedge.files.csv.lines import Lines
from loopedge.files.csv.row_reader import RowBlock, RowReader, Swallowed, place_of
from loopedge.files.kinds import other_kind
from loopedge.files.text_pieces import TextPieces, open_text

__all__ = ["CsvTable", "RowBlock", "TableRow", "open_csv"]

SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE | re.DOTALL)
"""First line by which a spreadsheet learns what separates the cells."""
PAGE = re.compile(r"\s*<(!doctype|html|\?xml|table)\b", re.IGNORECASE)


class TableRow(NamedTuple):
    """A table row: its number from 1 without the header, the line on which it ends, and its cells."""

    number: int
    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """A CSV file that is being read.

    Args:
        text: The file.
        form: How it is written down.
        delimiter: What separates its cells.
        header: Names of the columns, where the file has a header.
        width: Cells of every table row.
        blocks: The table rows; can be iterated once.
        swallowed: Cells with line breaks that hold whole table rows, as far as the rows were iterated.
    """

    text: TextPieces
    form: CsvForm
    delimiter: str
    header: tuple[str, ...] | None
    width: int
    blocks: Iterator[RowBlock]
    swallowed: Swallowed = field(default_factory=Swallowed)

    @property
    def source(self) -> Path:
        """The file."""
        return self.text.source

    @property
    def rows(self) -> Iterator[TableRow]:
        """The table rows, one after the other; can be iterated once."""
        for block in self.blocks:
            for row, line in enumerate(block.lines):
                yield TableRow(block.first + row, line, block.row(row))

    def place(self, number: int, line: int) -> str:
        """Return where a table row stands, for messages."""
        return place_of(self.source, number, line)


def _always(cells: Sequence[str]) -> bool:
    return True


@contextlib.contextmanager
def open_csv(
    source: Path,
    form: CsvForm | None = None,
    *,
    is_header: Callable[[Sequence[str]], bool] = _always,
    keep_empty_lines: bool = True,
    with_option: bool = False,
) -> Iterator[CsvTable]:
    """Open a CSV file; its rows are read while they are iterated, inside the ``with`` block.

    Empty lines, and table rows without any text at the end of the file, are left out. A row of empty cells
    before others is a row whose values are missing: without it time would shift. Where there is one
    column, such a row is an empty line.

    Args:
        source: The file, plain or compressed with gzip.
        form: How it is written down; default: as `CsvForm` finds.
        is_header: Returns whether the first row with a text names the columns; default: it does.
        keep_empty_lines: Take an empty line of a table of one column for an empty cell.
        with_option: Whether the user can name the encoding, for hints.

    Raises:
        InputError: The file holds no text, or another one than its encoding says, holds a NUL byte or a quote that
            never ends, names a column twice, or a row has more or fewer cells than the first; on opening, or
            while its rows are iterated.
    """
    wrong = other_kind(source, "a CSV")
    if wrong is not None:
        raise wrong
    form = form or CsvForm()
    with open_text(
        source,
        form.encoding,
        encoding_option=(lambda name: form_option("encoding", name)) if with_option else None,
    ) as text:
        yield _open(text, form, is_header, keep_empty_lines=keep_empty_lines)


def _open(
    text: TextPieces,
    form: CsvForm,
    is_header: Callable[[Sequence[str]], bool],
    *,
    keep_empty_lines: bool,
) -> CsvTable:
    source = text.source
    lines = _start(text, form)
    reader = RowReader(source, lines, form)
    header_rows = reader.first_row()
    if header_rows is None:
        raise InputError(f"{source} is empty", hint="write a table into it, one row a line")
    first, before = header_rows
    named = is_header(first[1])
    names = tuple(cell.strip() for cell in first[1]) if named else None
    if names is not None:
        _check_names(source, names, first[0])
    reader.width = len(first[1])
    reader.expected = "the header" if named else "the first row"
    reader.names = names
    swallowed = Swallowed()
    return CsvTable(
        text=text,
        form=form,
        delimiter=lines.delimiter,
        header=names,
        width=reader.width,
        blocks=reader.blocks([] if named else [*before, first], swallowed, keep_empty_lines),
        swallowed=swallowed,
    )


def _start(text: TextPieces, form: CsvForm) -> "Lines":
    """Look at the first line that holds anything: it says what separates the cells."""
    held, first_line = [], ""
    for piece in text.pieces:
        held.append(piece)
        candidates = (line for line in StringIO(piece, newline="") if _holds_cells(line, form))
        first_line = next(candidates, "")
        if first_line:
            break
    _check_other_text(text.source, first_line)
    said = SEPARATOR.fullmatch(first_line)
    cells = first_line if form.comment is None else first_line.split(form.comment)[0]
    return Lines(
        text.source,
        itertools.chain(held, text.pieces),
        delimiter=form.delimiter or (said[1] if said else find_delimiter(cells, form.decimal)),
        comment=form.comment,
        skip_first=said is not None,
    )


def _holds_cells(line: str, form: CsvForm) -> bool:
    start = line.strip()
    return bool(start) and (form.comment is None or not start.startswith(form.comment))


def _check_other_text(source: Path, first_line: str) -> None:
    """Refuse JSON and pages of HTML or XML under the name of a table."""
    start = first_line.strip()
    if PAGE.match(start):
        raise InputError(
            f"{source} is a page of HTML or XML, a CSV is needed", hint="save the table as CSV"
        )
    if not start.startswith(("{", "[")):
        return
    try:
        value = json.loads(start)
    except (ValueError, RecursionError):
        value = {} if start in {"{", "[", "[{"} else None
    if isinstance(value, dict | list):
        lines = ", lines=True" if isinstance(value, dict) and value else ""
        raise InputError(
            f"{source} holds JSON, a CSV is needed",
            hint=f"python -c \"import pandas; pandas.read_json('{source}'{lines}).to_csv('{source.stem}.csv', index=False)\"",
        )


def _check_names(source: Path, names: Sequence[str], line: int) -> None:
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        places = [str(place) for place, name in enumerate(names, start=1) if name == repeated]
        raise InputError(
            f"{source.name}: column {repeated!r} stands {len(places)} times in the header (line {line}): as number "
            f"{', '.join(places[:-1])} and {places[-1]}",
            hint="give each column a name of its own",
        )
