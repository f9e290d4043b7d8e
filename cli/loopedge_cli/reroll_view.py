"""What people see of a graph that got its Loop back."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import ratio_text, size_text
from loopedge_cli.page import count_text, page, plain, rows_list, seconds_text
from loopedge_cli.view_rows import file_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["reroll_view"]

HEADS = ("iterations", "nodes", "states", "tables", "context", "stacked")
INDENT = "  "


def reroll_view(result: "Result") -> "RenderableType":
    """Show a `RerollResult`."""
    fields = result.to_json()
    rows = [
        ("source", plain(fields["source"])),
        ("loops", _loops_text(fields["loops"])),
        ("nodes", _change_text(fields["source_nodes"], fields["nodes"], str)),
        (
            "weights",
            _change_text(fields["source_weight_bytes"], fields["weight_bytes"], size_text),
        ),
        (
            "verified",
            f"[green]against its source[/green] on {fields['cases']} cases, "
            f"largest relative error {fields['max_rel_error']:.1e}",
        ),
        ("files before", size_text(fields["source_bytes"])),
        ("seconds", seconds_text(fields["seconds"])),
        *file_rows(fields["files"]),
    ]
    every = list(_with_inner(fields["loops"]))
    loops = [(INDENT * depth + loop["name"], *_counts(loop)) for depth, loop in every]
    peeled = [row for _, loop in every for row in _peeled_rows(loop)]
    return page(
        Path(fields["path"]).name,
        rows,
        rows_list("loop", HEADS, loops),
        rows_list("written out before or after its loop", ("iteration", "reason"), peeled),
    )


def _loops_text(loops: list[dict[str, Any]]) -> str:
    counts = ", ".join(count_text(loop["iterations"], "iteration") for loop in loops)
    return f"{len(loops)}: {counts}" if len(loops) > 1 else counts


def _change_text(before: int, after: int, text: Any) -> str:
    """Say ``692 KiB -> 118 KiB, 5.86x less``."""
    shown = f"{text(before)} -> {text(after)}"
    return (
        f"{shown}, [bold]{ratio_text(before / after)}[/bold] less" if 0 < after < before else shown
    )


def _with_inner(
    loops: list[dict[str, Any]], depth: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    for loop in loops:
        yield depth, loop
        yield from _with_inner(loop["inner"], depth + 1)


def _counts(loop: dict[str, Any]) -> list[int]:
    return [loop[key] for key in HEADS]


def _peeled_rows(loop: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Say which iterations stand outside of a loop, and how they differ from those inside."""
    places = (("first", loop["peeled_first"]), ("last", loop["peeled_last"]))
    return [(loop["name"], place, reason) for place, reason in places if reason]
