"""Tables for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopedge.profiler.pipeline import ProfileResult, Run
from loopedge.report.verdict import cautions, verdicts
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["operator_table", "profile_table", "run_table"]

SHOWN_OPERATORS = 6


def profile_table(result: ProfileResult) -> RenderableType:
    """Return the comparison, the operators and the verdict of a profile."""
    machine = result.machine
    where = f"{machine['cpu']}, {result.runs[0].threads} thread(s), onnxruntime "
    shown: list[RenderableType] = [
        run_table(result),
        Text(f"{where}{machine['onnxruntime']}; memory on top of the imported runtime", "dim"),
        "",
        operator_table(result),
    ]
    for sentence in [*verdicts(result), *cautions(result)]:
        shown += ["", Text(sentence, "bold")]
    return Group(*shown)


def run_table(result: ProfileResult) -> Table:
    """Return one row per run: bytes, load, memory, latency, and time against the first run."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("model", overflow="fold")
    for head in ("loops", "file", "load", "anonymous", "RSS", "peak", "p50", "p95", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in result.runs:
        table.add_row(
            Text(run.name),
            str(run.loops or "-"),
            size_text(run.file_bytes),
            time_text(run.load_seconds * 1000),
            size_text(run.anon_bytes),
            size_text(run.rss_load_bytes),
            size_text(run.rss_peak_bytes),
            time_text(run.latency_ms.p50),
            time_text(run.latency_ms.p95),
            ratio_text(run.time_ratio),
        )
    return table


def operator_table(result: ProfileResult) -> Table:
    """Return the share of the time of the largest operators, one row per run."""
    names = _largest_operators(result.runs)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("share of the time", overflow="fold")
    for name in (*names, "other"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in result.runs:
        shares = {item.op: item.share for item in run.ops}
        other = max(0.0, 1 - sum(shares.get(name, 0.0) for name in names)) if run.ops else 0.0
        cells = [*(shares.get(name, 0.0) for name in names), other]
        table.add_row(Text(run.name), *(f"{cell:.0%}" for cell in cells))
    return table


def _largest_operators(runs: list[Run]) -> list[str]:
    largest: dict[str, float] = {}
    for run in runs:
        for item in run.ops:
            largest[item.op] = max(largest.get(item.op, 0.0), item.share)
    return sorted(largest, key=lambda name: -largest[name])[:SHOWN_OPERATORS]
