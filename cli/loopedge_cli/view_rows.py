"""Facts that several views show, as rows and text."""

from collections.abc import Sequence
from typing import Any

from loopedge.units import size_text
from loopedge_cli.page import count_text, decibels_text, number_text, plain, rows_list

__all__ = [
    "coverage_text",
    "file_rows",
    "held_out_rows",
    "last_rows",
    "loss_text",
    "treatments_list",
]


def coverage_text(coverage: dict[str, Any]) -> str:
    """Say how many linears run in integers, and the share of their bytes."""
    done, total = coverage["quantized"], coverage["total"]
    if total == 0:
        return "no linears"
    style = "green" if done == total else "yellow" if done else "dim"
    percent = (
        100 * coverage["bytes"] // max(1, coverage["total_bytes"])
    )  # 100 where all of them are
    return f"[{style}]{done} of {total}[/{style}] linears, {percent}% of the bytes of their weights"


def file_rows(files: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """List files with their bytes."""
    return [
        ("files", f"{plain(file['path'])}  [dim]{size_text(file['bytes'])}[/dim]") for file in files
    ]


def held_out_rows(held_out: dict[str, Any]) -> list[tuple[str, str]]:
    """Show what was measured, and on which samples."""
    where = {
        "validation": "{} of the task's validation part",
        "data": "{} held out of the data",
        "calibrating": "[yellow]{} that also calibrated[/yellow]",
        "generated": "[yellow]{} that were generated[/yellow]: name --data for a figure of yours",
    }[held_out["source"]].format(count_text(held_out["samples"], "sample"))
    rows = [
        (
            "verified",
            f"[green]against the float model[/green], SQNR {decibels_text(held_out['sqnr_db'])} on {where}",
        )
    ]
    if held_out["metric"] is None:
        return rows
    error = held_out["loss_error"]
    noise = "" if error is None else f", standard error {number_text(error)}"
    style = "red" if held_out["moved"] else "green"
    scores = " -> ".join(number_text(held_out[key]) for key in ("float_score", "score"))
    text = f"[{style}]{scores}[/{style}] on the same samples, {loss_text(held_out['loss'])}{noise}"
    return [*rows, (plain(held_out["metric"]), text)]


def last_rows(fields: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what the last iteration computes, where it is not everything."""
    if fields is None or not fields["applied"]:
        return []
    products = f"{fields['narrowed']} of {fields['products']} products"
    return [("last iteration", f"computes positions {fields['positions']} alone in {products}")]


def loss_text(loss: float) -> str:
    """Say how far a metric moved, and in which direction: ``loses 0.02``."""
    return f"gains {number_text(-loss)}" if loss < 0 else f"loses {number_text(loss)}"


def treatments_list(treatments: Sequence[dict[str, Any]]) -> Any:
    """List the linears that are not treated as the core's."""
    rows = [(item["name"], _treatment_text(item), item["reason"]) for item in treatments]
    return rows_list("treated otherwise than the core", ("how", "reason"), rows)


def _treatment_text(item: dict[str, Any]) -> str:
    if item["treatment"] != "static":
        return str(item["treatment"])
    return f"static, {item['method']}, margin {item['margin']:g}"
