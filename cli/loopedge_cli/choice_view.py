"""What people see of a choice among quantizations."""

from typing import Any

from loopedge.units import size_text
from loopedge_cli.page import count_text, number_text, rows_list

__all__ = ["choice_lists"]

WHERE = {
    "validation": "of the task's validation part",
    "data": "of the data",
    "calibrating": "that also calibrated",
    "generated": "that were generated",
}


def choice_lists(choice: dict[str, Any]) -> list[Any]:
    """Show what the choice was made among, and what was not tried."""
    scored = choice["metric"] is not None
    rows = [
        (
            item["name"],
            *([number_text(item["score"] if whole else None)] if scored else []),
            f"{item['sqnr_db']:.1f}" if whole else "-",
            _ratio_text(item),
            size_text(item["bytes"]),
            item["verdict"],
        )
        for item in choice["candidates"]
        for whole in [item["samples"] == choice["samples"]]
    ]
    heads = (*([choice["metric"]] if scored else []), "dB", "time", "files", "reason")
    left_out = [tuple(text.split(": ", 1)) for text in choice["left_out"]]
    title = f"candidates, on {count_text(choice['samples'], 'sample')} {WHERE[choice['source']]}"
    return [
        rows_list(title, heads, rows),
        rows_list("not tried", ("reason",), left_out),
    ]


def _ratio_text(item: dict[str, Any]) -> str:
    if item["time_ratio"] is None:
        return "-"
    return f"{item['time_ratio']:.2f}" if item["steady"] else f"{item['time_ratio']:.2f}?"
