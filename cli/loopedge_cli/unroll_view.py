"""What people see of a graph whose Loops were written out."""

from pathlib import Path
from typing import TYPE_CHECKING

from loopedge.units import size_text
from loopedge_cli.page import count_text, page, plain, rows_list, seconds_text
from loopedge_cli.view_rows import file_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["unroll_view"]

COLUMNS = ("iterations", "nodes", "states", "stacked")


def unroll_view(result: "Result") -> "RenderableType":
    """Show an `UnrollResult`."""
    fields = result.to_json()
    counts = ", ".join(count_text(loop["iterations"], "iteration") for loop in fields["loops"])
    inner = f"{count_text(fields['inner'], 'Loop')} inside iterations" if fields["inner"] else ""
    rows = [
        ("source", plain(fields["source"])),
        ("written out", "; ".join(filter(None, (counts, inner)))),
        ("nodes", f"{fields['source_nodes']} -> {fields['nodes']}"),
        ("weights", f"{size_text(fields['weight_bytes'])} stored once"),
        (
            "verified",
            f"[green]against its source[/green] on {fields['cases']} cases, "
            f"largest relative error {fields['max_rel_error']:.1e}",
        ),
        ("seconds", seconds_text(fields["seconds"])),
        *file_rows(fields["files"]),
    ]
    loops = [
        (f"{loop['name']}, as {loop['core']}.<t>/", *(loop[key] for key in COLUMNS))
        for loop in fields["loops"]
    ]
    return page(Path(fields["path"]).name, rows, rows_list("loop", COLUMNS, loops))
