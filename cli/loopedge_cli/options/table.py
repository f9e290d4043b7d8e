"""Options of commands that read a table: how it is written down.

`loopedge.data.tables.format.TableFormat` has the same names. A command takes them one by one and hands them to `table_format`.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from loopedge.data.tables.format import TableFormat

__all__ = [
    "PANEL",
    "Comment",
    "Decimal",
    "Delimiter",
    "Encoding",
    "NaValues",
    "Thousands",
    "TimeFormat",
    "Timezone",
    "named_fields",
    "table_format",
]

PANEL = "Table"
"""Panel of the help."""

Encoding = Annotated[
    str | None,
    typer.Option(
        help="Of a CSV's characters, such as cp1252; default: UTF-8, or what its byte order mark says.",
        rich_help_panel=PANEL,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="What separates a CSV's cells, or tab; default: found in its first line.",
        rich_help_panel=PANEL,
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="What stands before a CSV's decimals; default: a point.",
        rich_help_panel=PANEL,
    ),
]
Thousands = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="What groups the digits of a CSV's numbers by three, or none; default: nothing does.",
        rich_help_panel=PANEL,
    ),
]
Comment = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What starts a line of a CSV, or the rest of one, that is left out, or none; default: nothing does.",
        rich_help_panel=PANEL,
    ),
]
NaValues = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="A further text that stands for a missing value; repeatable.",
        rich_help_panel=PANEL,
    ),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="How times are written, such as '%d.%m.%Y %H:%M'; default: numbers or ISO 8601.",
        rich_help_panel=PANEL,
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Zone of times that say none, such as Europe/Berlin; default: clocks never change.",
        rich_help_panel=PANEL,
    ),
]


def table_format(known: "TableFormat | None" = None, **values: Any) -> "TableFormat":
    """Return how a table is written down: what the command line says, over what is known.

    Args:
        known: What a model file says of the tables that it was trained on; default: the defaults.
        values: Options by name; None and an empty list are options that were left out.
    """
    from dataclasses import replace

    from loopedge.data.tables.format import TableFormat

    return replace(known or TableFormat(), **named_fields(**values))


def named_fields(**values: Any) -> dict[str, Any]:
    """Return the fields of a `TableFormat` that the command line names; None and an empty list were left out."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and value != []
    }
