"""The names of a table's columns, before any of its rows is read, and the patterns that stand for some of them."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from loopedge.data.tables.chunks import header_hint, near_names, show_names
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.kinds.kind import kind_of
from loopedge.errors import InputError
from loopedge.files.input_files import check_file

__all__ = ["expand_names", "read_header"]

WILD = frozenset("*?")


def read_header(
    path: str | Path, columns: Sequence[str], form: TableFormat | None = None
) -> tuple[str, ...] | None:
    """Return the names of the columns of a table; None where a CSV names none.

    Args:
        path: The file.
        columns: What columns are looked for: names that are numbers, such as years, are names where they are among them.
        form: How the table is written down.

    Raises:
        InputError: The file cannot be read, or its header cannot be used.
        MissingExtraError: The file is Parquet or Arrow and pyarrow is not installed.
    """
    source = check_file(path, needed="a CSV or Parquet file")
    return kind_of(source).header(source, columns, form or TableFormat())


def expand_names(
    path: str | Path,
    names: Sequence[str],
    *,
    without: Collection[str | None] = (),
    form: TableFormat | None = None,
) -> tuple[str, ...]:
    """Return names of columns in which patterns are replaced by the columns that they match.

    ``*`` stands for any characters and ``?`` for one. A column that is called so itself is not a pattern.

    Args:
        path: The table; it is opened only where a name may be a pattern.
        names: Names and patterns.
        without: Columns that a pattern does not match.
        form: How the table is written down.

    Returns:
        The names, those of a pattern in the order of the header; none stands twice because of a pattern.

    Raises:
        InputError: The file cannot be used, or a pattern matches no column.
        MissingExtraError: The file is Parquet or Arrow and pyarrow is not installed.
    """
    if not any(WILD & set(name) for name in names):
        return tuple(names)
    header = read_header(path, (), form) or ()
    found: list[str] = []
    for name in names:
        if name in header or not WILD & set(name):
            found.append(name)
            continue
        matched = [
            other
            for other in header
            if fnmatchcase(other, name.replace("[", "[[]")) and other not in without
        ]
        if not matched:
            near = near_names(name.replace("*", "").replace("?", ""), header)
            perhaps = f", perhaps {' or '.join(map(repr, near))}" if near else ""
            hint = (None if near else header_hint(header)) or f"name one of them{perhaps}"
            raise InputError(
                f"{Path(path).name}: no column matches {name!r}; the columns are {show_names(header)}",
                hint=hint,
            )
        found += [other for other in matched if other not in found and other not in names]
    return tuple(found)
