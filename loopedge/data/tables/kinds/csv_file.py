"""Columns of a CSV file, a chunk at a time; whatever is wrong is said with its table row and column."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loopedge.data.tables.chunks import UNNAMED, Chunk, Selection, find_column
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.wide import wide_finding
from loopedge.errors import InputError
from loopedge.files.csv.cells import parse_numbers
from loopedge.files.csv.form import form_option
from loopedge.files.csv.numbers import is_header
from loopedge.files.csv.rows import CsvTable, RowBlock, open_csv
from loopedge.files.csv.spellings import OtherCells, looks_grouped
from loopedge.files.text_pieces import open_text

__all__ = ["csv_chunks", "csv_header"]

SEARCHED = 100
"""Lines in which the header is looked for, where the first line is none."""


def csv_header(source: Path, columns: Sequence[str], form: TableFormat) -> tuple[str, ...] | None:
    """Return the names of the columns; None where the file names none.

    Args:
        source: The file.
        columns: What columns are looked for: names that are numbers, such as years, are names where they are among them.
        form: How the table is written down.

    Raises:
        InputError: The file cannot be used.
    """
    with open_csv(
        source, form, is_header=lambda cells: is_header(cells, columns), with_option=True
    ) as table:
        return table.header


def csv_chunks(
    source: Path, selection: Selection, form: TableFormat, findings: list[Finding]
) -> Iterator[Chunk]:
    """Yield the table rows of a CSV file with a header, or of one without where the selection allows it.

    Args:
        source: The file, as `loopedge.files.csv.rows.open_csv` reads it.
        selection: The columns to read.
        form: How the table is written down.
        findings: Gets what a person should know of the file.

    Raises:
        InputError: The file, a column or a value cannot be used.
    """
    with open_csv(
        source, form, is_header=lambda cells: _is_header(cells, selection), with_option=True
    ) as table:
        if table.header is None:  # no column of times either: the rows' own order is taken
            selection = replace(selection, time=None)
        places = _find_places(table, selection)
        findings += _of_encoding(table, form)
        findings += wide_finding(table.header or (), selection.numbers)
        wrong: dict[str, OtherCells] = {}
        numbers = dict.fromkeys(selection.numbers, 0)
        for block in table.blocks:
            if block.first == 1:
                findings += _of_points(table, block, selection, places)
            yield _chunk(table, block, selection, places, wrong, numbers)
        findings += _of_swallowed(table)
    for name, found in wrong.items():
        more = f" ({found.count} values of the column are not numbers)" if found.count > 1 else ""
        raise InputError(found.message + more, hint=found.hint(form, numbers[name]))


def _is_header(cells: Sequence[str], selection: Selection) -> bool:
    alone = selection.headerless and selection.label is None and selection.group is None
    return not alone or is_header(cells, selection.numbers)


def _find_places(table: CsvTable, selection: Selection) -> dict[str, int]:
    """Return the place of each column that is read."""
    source = table.source
    header = selection.all if table.header is None else table.header
    if table.header is None and table.width != len(header):
        needed = "1 column is" if len(header) == 1 else f"{len(header)} columns are"
        raise InputError(
            f"{source} has no header and {table.width} columns, without a header {needed} needed",
            hint=f"let the first line name the columns: {','.join(header)}",
        )
    if not any(header):
        raise InputError(f"{source} names no column", hint="the first line must name the columns")
    try:
        return {name: find_column(source, header, name) for name in selection.all}
    except InputError as error:
        hint = _other_header(table, selection.all)
        raise InputError(error.message, hint=hint or error.hint) from None


def _other_header(table: CsvTable, names: Sequence[str]) -> str | None:
    """Return how the header is found that is not the first line, or that another character separates."""
    header = table.header or ()
    for other in ",;\t|":
        cells = [cell.strip() for cell in table.delimiter.join(header).split(other)]
        if other != table.delimiter and set(names) <= set(cells):
            return form_option("delimiter", other)
    if header and header[0].startswith("#") and table.form.comment is None:
        return None  # `header_hint` says so
    with open_text(table.source, table.form.encoding) as text:
        lines = "".join(itertools.islice(text.pieces, 1)).splitlines()[:SEARCHED]
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip().strip('"') for cell in line.split(table.delimiter)]
        if set(names) <= set(cells):
            return (
                f"the header stands in line {number}: tail -n +{number} {table.source} > table.csv"
            )
    return None


def _chunk(
    table: CsvTable,
    block: RowBlock,
    selection: Selection,
    places: dict[str, int],
    wrong: dict[str, OtherCells],
    found: dict[str, int],
) -> Chunk:
    def texts(name: str | None) -> list[str] | None:
        return None if name is None else list(map(str.strip, block.column(places[name])))

    numbers = np.empty((len(block), len(selection.numbers)))
    for at, name in enumerate(selection.numbers):
        cells = block.column(places[name])
        numbers[:, at], others = parse_numbers(cells, table.form)
        found[name] += int((~np.isnan(numbers[:, at])).sum())
        if others:
            row = others[0]
            place = table.place(block.first + row, block.lines[row])
            message = f"{place}, column {name!r}: {cells[row].strip()!r} is not a number"
            wrong.setdefault(name, OtherCells(message, name)).add(
                [cells[row].strip() for row in others]
            )
    chunk = Chunk(
        source=table.source.name,
        first=block.first - 1,
        lines=block.lines,
        numbers=numbers,
        labels=texts(selection.label),
        groups=texts(selection.group),
        times=texts(selection.time),
        unnamed=UNNAMED.union(table.form.na_values),
    )
    chunk.check_size(selection.numbers, lambda row, name: block.row(row)[places[name]].strip())
    return chunk


def _of_encoding(table: CsvTable, form: TableFormat) -> Iterator[Finding]:
    """Say where the encoding was found, or does not seem to be the right one."""
    text = table.text
    if text.marked and text.encoding != "utf-8" and form.encoding is None:
        message = f"{table.source.name} is read as {text.encoding}, as its byte order mark says"
        yield Finding(kind="encoding", message=message)
    if form.encoding is not None and text.encoding != "utf-8" and text.seems_utf8:
        message = (
            f"{table.source.name} is read as {text.encoding}, but its characters are UTF-8 as well"
        )
        yield Finding(
            kind="encoding",
            message=message,
            hint=f"leave out {form_option('encoding', form.encoding)}",
        )


def _of_points(
    table: CsvTable, block: RowBlock, selection: Selection, places: dict[str, int]
) -> Iterator[Finding]:
    """Say where points may group digits: nothing but the size of the numbers tells it."""
    if table.form.decimal != "." or table.form.thousands is not None:
        return
    for name in selection.numbers:
        text = looks_grouped(block.column(places[name]))
        if text is not None:
            message = (
                f"column {name!r}: its numbers with a point have three digits behind it and all others are whole and "
                f"below 1000; {text!r} is read as {float(text):g}"
            )
            hint = f"{form_option('thousands', '.')} {form_option('decimal', ',')} if it is {text.replace('.', '')}"
            yield Finding(kind="shape", message=message, hint=hint)


def _of_swallowed(table: CsvTable) -> Iterator[Finding]:
    """Say that table rows stand inside quoted cells."""
    found = table.swallowed
    if found.cells:
        cells = f"{found.cells} quoted cells hold" if found.cells > 1 else "a quoted cell holds"
        message = (
            f"{cells} whole table rows, the first in {table.place(found.first, found.line)}: "
            "these rows are not read"
        )
        yield Finding(
            kind="shape", message=message, hint="look for a quote that is closed too late"
        )
