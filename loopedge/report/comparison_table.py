"""Two profiles side by side, for the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopedge.profiler.comparison.result import Change, Comparison
from loopedge.profiler.figures import FIGURE_NAMES, LATENCY, figure_text
from loopedge.units import percent_text, ratio_text

__all__ = ["comparison_table"]

ALWAYS = frozenset({"file_bytes", "anon_bytes", "rss_peak_bytes", "time_ratio", "latency_ms.p50"})
"""Figures whose every change is shown, within the noise too."""

TIMES = ("time_ratio", LATENCY)

WORTH = 0.005
"""Other figures are shown where they change by more than this part, beyond the noise."""


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return what speaks against the comparison, what changed, run by run, and what regressed."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")
    alike = comparison.before_client == comparison.after_client
    heads = ("before", "after") if alike else _clients(comparison)
    for head in (*heads, "ratio"):
        table.add_column(head, justify="right")
    table.add_column("")
    for run in comparison.runs:
        changes = [change for change in run.changes if _shown(change)]
        remark = "" if changes else "nothing changed"
        table.add_row(Text(run.label, "bold"), "", "", "", Text(remark, "dim"))
        for name, (old, new) in run.differences.items():
            table.add_row(f"  {name}", str(old), str(new), "", "")
        for change in changes:
            table.add_row(*_cells(change, judged=alike))
    shown: list[RenderableType] = [Text(text, "bold yellow") for text in comparison.cautions]
    shown.append(table if comparison.runs else Text("No run is in both."))
    shown += [Text(line, style) for line, style in _lines(comparison)]
    return Group(*shown)


def _shown(change: Change) -> bool:
    if change.before == change.after:
        return False
    moved = change.ratio is None or abs(change.ratio - 1) > WORTH
    return change.figure in ALWAYS or (moved and change.beyond_noise is not False)


def _clients(comparison: Comparison) -> tuple[str, str]:
    """Return who measured the two."""
    before, after = comparison.before_client, comparison.after_client
    return before or "loopedge profile", after or "loopedge profile"


def _cells(change: Change, *, judged: bool) -> list[Text]:
    ratio = "-" if change.ratio is None else ratio_text(change.ratio)
    old, new = (figure_text(change.figure, value) for value in (change.before, change.after))
    remark = _remark(change) if judged else ""
    cells = [f"  {FIGURE_NAMES[change.figure]}", old, new, ratio, remark]
    return [Text(cell, "red" if change.past else "") for cell in cells]


def _remark(change: Change) -> str:
    if change.past:
        return "past what is allowed"
    if change.beyond_noise is None:
        return "noise not known"
    if not change.beyond_noise:
        return "within the noise"
    return "beyond the noise" if change.judged else "beyond the noise, not judged"


def _unjudged(comparison: Comparison) -> str:
    """Say which times were not judged: a regression of theirs is not in the list."""
    judged = {change.figure for run in comparison.runs for change in run.changes if change.judged}
    left_out = [FIGURE_NAMES[figure] for figure in TIMES if figure not in judged]
    return f"; not judged: {', '.join(left_out)}" if left_out else ""


def _lines(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yield lines below the table, and their style."""
    for name in comparison.new:
        yield f"new: {name}", ""
    for name in comparison.gone:
        yield f"gone: {name}", ""
    if comparison.max_regression is None:
        return
    if not comparison.regressions:
        yield (
            f"No judged figure grew by more than {percent_text(comparison.max_regression)}"
            f"{_unjudged(comparison)}.",
            "bold",
        )
    for item in comparison.regressions:
        yield f"regression: {item.label}: {item.reason}", "bold red"
