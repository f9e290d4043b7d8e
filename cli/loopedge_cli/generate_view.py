"""What people see of a file that decodes with a cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopedge.units import size_text
from loopedge_cli.page import (
    count_text,
    decibels_text,
    number_text,
    page,
    plain,
    rows_list,
    seconds_text,
)
from loopedge_cli.view_rows import file_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

    from loopedge_cli.output import Result

__all__ = ["cache_rows", "generate_file_view", "without_cache"]

COLUMNS = ("loops", "kv_heads", "head_size", "window")
MANY_POSITIONS = 1000


def generate_file_view(result: "Result") -> "RenderableType":
    """Show a `GenerateResult`."""
    fields = result.to_json()
    context = fields["context"]
    room = (
        "" if context is None else f", {size_text(fields['cache_bytes_per_token'] * context)} full"
    )
    rows = [
        ("source", plain(fields["source"])),
        ("form", f"{fields['form']}, {count_text(fields['loops'], 'loop')}"),
        (
            "cache",
            f"{fields['cache']}, {fields['cache_type']}, "
            f"{size_text(fields['cache_bytes_per_token'])} per token{room}",
        ),
        *([("exit", f"each token, {fields['exit']}")] if fields["exit"] else []),
        ("context", "any length" if context is None else f"{context:,} positions"),
        ("nodes", f"{fields['source_nodes']} -> {fields['nodes']}"),
        ("weights", f"{size_text(fields['weight_bytes'])} stored once"),
        (
            "verified",
            f"[green]decoded against whole texts[/green] in {fields['cases']} cases, "
            f"{fields['tokens']} tokens, largest relative error {fields['max_rel_error']:.1e}, "
            f"{fields['sqnr_db']:.0f} dB",
        ),
        *_loss_rows(fields["cache_loss"]),
        ("seconds", seconds_text(fields["seconds"])),
        *file_rows(fields["files"]),
    ]
    slots = [
        (slot["name"], *("-" if slot[key] is None else slot[key] for key in COLUMNS))
        for slot in fields["slots"]
    ]
    return page(Path(fields["path"]).name, rows, rows_list("slot", COLUMNS, slots))


def _loss_rows(loss: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what a cache of integers costs."""
    if loss is None:
        return []
    scores = f"{number_text(loss['float_perplexity'])} -> {number_text(loss['perplexity'])}"
    where = f"{loss['tokens']} tokens that did not find its scales"
    if loss["source"] == "calibrating":
        where = f"[yellow]{loss['tokens']} tokens that also found its scales[/yellow]"
    return [
        (
            "rounded cache",
            f"{decibels_text(loss['cache_sqnr_db'])}, logits {decibels_text(loss['sqnr_db'])}, on {where}",
        ),
        ("perplexity", f"{scores}, {loss['change']:+.2%}"),
    ]


def without_cache(ports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return inputs or outputs of a file but for those of its cache, which `cache_rows` tells."""
    return [port for port in ports if not port["name"].startswith(("past.", "present."))]


def cache_rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what the cache of an inspected file takes: nothing of a file without one."""
    generate, token = fields["metadata"].get("generate"), fields["cache_bytes_per_token"]
    if generate is None or token is None:
        return []
    slots, context = generate["slots"], generate.get("context")
    windows = sorted({slot["window"] for slot in slots if slot.get("window")})
    parts = [
        f"{generate['cache']}, {generate['cache_type']}, {count_text(len(slots), 'slot')}",
        f"{size_text(token)} a token, [bold]{size_text(MANY_POSITIONS * token)}[/bold] per {MANY_POSITIONS:,} positions",
    ]
    if windows:
        parts.append(f"windows of {', '.join(map(str, windows))}")
    longest = "any length" if context is None else f"{context:,} positions"
    return [("cache", "; ".join(parts)), ("context", longest)]
