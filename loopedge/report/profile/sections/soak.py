"""Memory and latency over time: leaks and drift."""

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from loopedge.profiler.labels import run_labels
from loopedge.profiler.result import Run, Soak, SoakPoint
from loopedge.report.profile.spread import range_text
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from loopedge.report.svg.units import byte_unit, time_unit
from loopedge.units import size_text

__all__ = ["soak_section", "soak_text"]

MOST_POINTS = 200
DRIFT = 0.05
"""A change of latency of less than this is called steady."""


def soak_section(runs: Sequence[Run]) -> list[str]:
    """Return a sentence and two charts for each run that was watched over time."""
    watched = [
        (label, run.soak)
        for label, run in zip(run_labels(runs), runs, strict=True)
        if run.soak is not None and run.soak.points
    ]
    if not watched:
        return []
    lines = ["<h2>Over time</h2>"]
    for label, soak in watched:
        lines += [
            f"<p>{escape(f'{label}: {soak_text(soak)}')}</p>",
            '<div class="panels">',
            *_panel(f"{label}: memory", _memory(soak.points)),
            *_panel(f"{label}: latency", _latency(soak.points)),
            "</div>",
        ]
    return lines


def soak_text(soak: Soak) -> str:
    """Say what became of memory and latency."""
    if soak.leaks:
        per = f"{size_text(soak.anon_bytes_per_1000_runs)} per 1000 runs"
        memory = f"anonymous memory grows by {per}, more than it swings: a leak"
    else:
        sizes = [point.anon_bytes for point in soak.points]
        between = range_text(size_text(min(sizes)), size_text(max(sizes)))
        memory = f"no leak: anonymous memory was {between}"
    change = soak.drift - 1
    if abs(change) < DRIFT:
        latency = f"latency is steady ({soak.drift:.2f}x from the first third to the last)"
    else:
        slower = "slower" if change > 0 else "faster"
        latency = f"the last third is {slower} than the first, {soak.drift:.2f}x"
    return f"{soak.seconds:.0f} s, {soak.runs} runs: {memory}; {latency}."


def _panel(caption: str, chart: Sequence[str]) -> list[str]:
    return ["<figure>", f"<figcaption>{escape(caption)}</figcaption>", *chart, "</figure>"]


def _memory(points: Sequence[SoakPoint]) -> list[str]:
    unit = byte_unit([point.rss_bytes for point in points])
    series = []
    for key, name, colour in (
        ("rss_bytes", "RSS", "op0"),
        ("anon_bytes", "anonymous", "op2"),
    ):
        for number, of_process in enumerate(_by_process(points)):
            marks = [
                Mark(x=point.second, y=getattr(point, key) / unit.divisor) for point in of_process
            ]
            series.append(
                Series(name="" if number else name, colour=colour, marks=marks, dots=False)
            )
    return chart(
        series,
        across=Axis(name="seconds since load"),
        upward=Axis(name=f"memory ({unit.name})"),
    )


def _latency(points: Sequence[SoakPoint]) -> list[str]:
    unit = time_unit([point.p50_ms for point in points])
    series = [
        Series(
            name="" if number else "median of a turn, a line per process",
            colour="op1",
            marks=[Mark(x=point.second, y=point.p50_ms / unit.divisor) for point in of_process],
            dots=False,
        )
        for number, of_process in enumerate(_by_process(points))
    ]
    return chart(
        series,
        across=Axis(name="seconds since load"),
        upward=Axis(name=f"latency ({unit.name})"),
    )


def _by_process(points: Sequence[SoakPoint]) -> list[list[SoakPoint]]:
    """Return the points of each process in time, thinned to as many as can be distinguished."""
    processes: dict[int, list[SoakPoint]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.second):
        processes[point.process].append(point)
    return [
        [of_process[round(i * (len(of_process) - 1) / (count - 1))] for i in range(count)]
        if (count := min(len(of_process), MOST_POINTS)) > 1
        else of_process
        for of_process in processes.values()
    ]
