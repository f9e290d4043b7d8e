"""Pieces that views are put together from: a title, facts, lists, and numbers as text."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = [
    "LISTED",
    "count_text",
    "decibels_text",
    "number_text",
    "page",
    "plain",
    "rows_list",
    "seconds_text",
    "shape_text",
]

LISTED = 24
"""Rows of a list that are shown; the JSON holds all."""


def page(
    title: str, rows: Iterable[tuple[str, str]], *lists: "Table | None", warning: str | None = None
) -> "Group":
    """Return a title, facts as pairs of a name and markup, and lists below them; a warning stands above all."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", justify="right")
    facts.add_column(overflow="fold")
    previous = ""
    for name, text in rows:
        facts.add_row("" if name == previous else name, text)
        previous = name
    above = [] if warning is None else [Text(f"WARNING: {warning}", style="bold red")]
    shown: list[Any] = [*above, Text(title, style="bold"), facts]
    for item in lists:
        if item is not None:
            shown += ["", item]
    return Group(*shown)


def rows_list(title: str, heads: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> "Table | None":
    """Return a table of at most `LISTED` rows; None where there are none."""
    if not rows:
        return None
    from rich.table import Table
    from rich.text import Text

    table = Table(title, *heads, box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].overflow = "fold"
    for index, head in enumerate(heads, start=1):
        table.columns[index].justify = "left" if head in {"reason", "shape", "type"} else "right"
    for row in rows[:LISTED]:
        table.add_row(*(Text(str(cell)) for cell in row))
    if len(rows) > LISTED:
        table.add_row(f"[dim]and {len(rows) - LISTED} more, see --json[/dim]")
    return table


def seconds_text(seconds: dict[str, float]) -> str:
    """Return the seconds of each step."""
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def shape_text(shape: Sequence[Any]) -> str:
    """Return the shape of a tensor; a size that is not known is a question mark."""
    return plain("(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ")")


def plain(text: str) -> str:
    """Keep square brackets in names from being read as rich markup."""
    from rich.markup import escape

    return escape(text)


def count_text(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number of things; ``plural`` where it takes more than an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def number_text(value: float | None) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def decibels_text(value: float | None) -> str:
    """Return decibels, or that they were not measured."""
    return "not measured" if value is None else f"{value:.1f} dB"
