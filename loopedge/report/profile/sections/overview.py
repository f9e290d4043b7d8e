"""Bars of file, memory and latency, one per run."""

from collections.abc import Callable, Sequence
from html import escape

from loopedge.profiler.figures import LATENCY, figure_of
from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Run
from loopedge.report.profile.cautions import time_caveat
from loopedge.report.profile.colours import colour_of
from loopedge.report.profile.spread import spread_text
from loopedge.report.svg.bars import Part, bar
from loopedge.report.svg.legend import legend
from loopedge.units import size_text, time_text

__all__ = ["overview_section"]

MOST_RUNS = 16
"""Beyond this the table and the curves tell it better."""

SHOWN: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("File", "the model and its data", "file_bytes", size_text),
    ("Anonymous memory after load", "what the kernel cannot drop", "anon_bytes", size_text),
    ("Peak memory", "highest resident memory", "rss_peak_bytes", size_text),
    ("Latency", "median of one inference", LATENCY, time_text),
)
KINDS = {
    "tied": "tied",
    "untied": "untied twin",
    "unrolled": "unrolled twin",
    "int8": "quantized",
    "eager": "PyTorch eager",
}


def overview_section(runs: Sequence[Run]) -> list[str]:
    """Return the bars, where there are not too many runs."""
    if not 0 < len(runs) <= MOST_RUNS:
        return []
    labels = run_labels(runs)
    lines = ["<h2>Memory and time</h2>", '<div class="panels">']
    for title, note, figure, text in SHOWN:
        values = [max(figure_of(run, figure), 0.0) for run in runs]
        largest = max([*values, 1e-12])
        caveat = time_caveat(*runs) if figure == LATENCY else ""
        about = f"{note} ({caveat})" if caveat else note
        lines += ["<figure>", f"<figcaption><b>{title}</b>: {escape(about)}</figcaption>"]
        for run, label, value in zip(runs, labels, values, strict=True):
            value_text = text(figure_of(run, figure)) + spread_text(run, figure)
            lines += bar(label, value_text, [Part(colour_of(run), label, value / largest)])
        lines.append("</figure>")
    lines.append("</div>")
    kinds = [kind for kind in KINDS if kind in {colour_of(run) for run in runs}]
    return [*lines, *(legend([(kind, KINDS[kind]) for kind in kinds]) if len(kinds) > 1 else [])]
