"""All figures of all runs with their ranges, and what could not be measured."""

from collections.abc import Callable, Sequence

from loopedge.profiler.figures import figure_of, spread_of
from loopedge.profiler.labels import setting_columns, settings_text
from loopedge.profiler.result import Failure, Run
from loopedge.report.page import Cell, table
from loopedge.report.profile.spread import range_text
from loopedge.units import error_text, ratio_text, size_text, time_text

__all__ = ["failure_section", "table_section"]

MEMORY = {
    "file": "file_bytes",
    "anonymous": "anon_bytes",
    "file-mapped": "mapped_bytes",
    "USS": "uss_bytes",
    "RSS": "rss_load_bytes",
    "peak": "rss_peak_bytes",
}


def table_section(runs: Sequence[Run]) -> list[str]:
    """Return a table of memory and one of time: the figures, their ranges over the processes below."""
    if not runs:
        return []
    settings = setting_columns(runs)
    named: list[Cell] = [(run.name, _unsaid_settings(run, settings)) for run in runs]
    figures = {head: key for head, key in MEMORY.items() if any(getattr(run, key) for run in runs)}
    memory = [
        [name, *(_ranged(run, figure, size_text) for figure in figures.values())]
        for name, run in zip(named, runs, strict=True)
    ]
    compared = any(run.output_error is not None for run in runs)
    time = [
        [name, *_time_cells(run), *([error_text(run.output_error)] if compared else [])]
        for name, run in zip(named, runs, strict=True)
    ]
    time_heads = ["load", "p50", "p95", "p99", "fastest", "runs", "time"]
    error_note = " The output error is the difference to the first run of the same work, in parts of its norm."
    processes = sorted({run.processes for run in runs})
    over = " to ".join(str(count) for count in dict.fromkeys((processes[0], processes[-1])))
    return [
        "<h2>All figures</h2>",
        *table(["model", *figures], memory),
        *table(["model", *time_heads, *(["output error"] if compared else [])], time),
        f'<p class="note">Medians over {over} fresh process{"" if over == "1" else "es"} per model, '
        "their smallest and largest value below. "
        "Time is the ratio to the first run, taken in turns: it holds on a busy machine."
        f"{error_note if compared else ''}</p>",
    ]


def failure_section(failures: Sequence[Failure]) -> list[str]:
    """Return what could not be measured, and why."""
    if not failures:
        return []
    rows = [
        (failure.name + (f" ({failure.twin})" if _unsaid(failure) else ""), failure.reason)
        for failure in failures
    ]
    return [
        "<h2>Could not be measured</h2>",
        '<div class="failures">',
        *table(["model", "reason"], rows),
        "</div>",
    ]


def _unsaid_settings(run: Run, settings: Sequence[str]) -> str:
    return ", ".join(text for text in settings_text(run, settings) if text not in run.name)


def _unsaid(failure: Failure) -> bool:
    return failure.twin is not None and failure.twin not in failure.name


def _ranged(run: Run, figure: str, text: Callable[[float], str]) -> Cell:
    """Say a figure, with its range below where the same digits do not say it already."""
    spread, value = spread_of(run, figure), text(figure_of(run, figure))
    if spread is None:
        return value
    low, high = text(spread.low), text(spread.high)
    return value if low == high == value else (value, range_text(low, high))


def _time_cells(run: Run) -> list[Cell]:
    latency = run.latency_ms
    return [
        _ranged(run, "load_seconds", lambda seconds: time_text(1000 * seconds)),
        _ranged(run, "latency_ms.p50", time_text),
        time_text(latency.p95),
        time_text(latency.p99),
        time_text(latency.min),
        str(latency.runs),
        _ranged(run, "time_ratio", ratio_text),
    ]
