"""How the runs ended, and whether their loops settle."""

from collections.abc import Sequence
from html import escape
from typing import Any

from loopedge.report.page import table
from loopedge.report.pilot.wording import Wording
from loopedge.study.judging.summary import Summary
from loopedge.study.result import PilotResult

__all__ = ["stability_section"]

HEADS = (
    "arm", "loops", "made", "diverged", "failed", "not_converged", "rate", "gradient", "update",
)  # fmt: skip


def stability_section(result: PilotResult, words: Wording) -> list[str]:
    """Return a row per arm and loop count, and why runs have no result."""
    rows = [_row(row, result, words) for row in result.summary]
    reasons = [
        (cell["name"], words(f"status_{cell['status']}"), cell.get("reason") or "")
        for cell in result.cells
        if cell["status"] != "done"
    ]
    reasons += [
        (cell["name"], words("reason_int8"), cell["int8_reason"])
        for cell in result.cells
        if cell.get("int8_reason")
    ]
    lines = [
        f"<h2>{escape(words('stability'))}</h2>",
        *table([words(f"head_{head}") for head in HEADS], rows),
        f'<p class="note">{escape(words("stability_note"))}</p>',
    ]
    if reasons:
        lines += [f"<h3>{escape(words('reasons'))}</h3>", '<ul class="reasons">']
        lines += [
            f"<li><code>{escape(name)}</code> {escape(how)}: "
            f'<span lang="en">{escape(why)}</span></li>'
            for name, how, why in reasons
        ]
        lines.append("</ul>")
    return lines


def _row(row: Summary, result: PilotResult, words: Wording) -> list[str]:
    cells = [cell for cell in result.cells if (cell["arm"], cell["loops"]) == (row.arm, row.loops)]
    late = [cell for cell in cells if cell.get("converged") is False]
    known = any("converged" in cell for cell in cells)
    return [
        row.arm,
        str(row.loops),
        str(row.runs),
        str(row.diverged),
        str(row.failed),
        str(len(late)) if known else "-",
        _rates(cells),
        f"{row.gradient_norm_max:.3g}" if row.gradient_norm_max else "-",
        " ".join(f"{value:.2g}" for value in thinned(row.relative_update or [])) or "-",
    ]


def _rates(cells: Sequence[dict[str, Any]]) -> str:
    """Return the learning rates that the runs trained with."""
    rates = sorted({cell["rate"] for cell in cells if cell.get("rate")})
    return ", ".join(f"{rate:g}" for rate in rates) or "-"


def thinned(values: Sequence[float], most: int = 8) -> list[float]:
    """Return at most eight values, first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
