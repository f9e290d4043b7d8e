"""Latency against memory: which runs no other beats in both."""

from collections.abc import Sequence
from html import escape

from loopedge.profiler.figures import FIGURE_NAMES, figure_of, memory_figure, spread_of
from loopedge.profiler.labels import groups_of, run_labels, swept
from loopedge.profiler.result import Run
from loopedge.report.profile.colours import colour_of
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from loopedge.report.svg.units import byte_unit, time_unit
from loopedge.units import size_text, time_text

__all__ = ["pareto_front", "tradeoff_section"]

MOST_PANELS = 8


def pareto_front(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that no other beats in median latency and memory, least memory first."""
    front: list[Run] = []
    figure = memory_figure(runs)
    for run in sorted(runs, key=lambda run: (figure_of(run, figure), run.latency_ms.p50)):
        if not front or run.latency_ms.p50 < front[-1].latency_ms.p50:
            front.append(run)
    return front


def tradeoff_section(runs: Sequence[Run]) -> list[str]:
    """Return one chart for each loop count, batch and sequence that one model was swept over."""
    labels = dict(zip(map(id, runs), run_labels(runs), strict=True))
    groups = [(work, of) for work, of in groups_of(runs, swept(runs)).items() if len(of) > 1]
    if not groups:
        return []
    lines = ["<h2>Latency against memory</h2>", '<div class="panels">']
    for work, of_work in groups[:MOST_PANELS]:
        lines += _panel(work, of_work, labels)
    lines.append("</div>")
    if len(groups) > MOST_PANELS:
        lines.append(f'<p class="note">And {len(groups) - MOST_PANELS} more, see the table.</p>')
    return lines


def _panel(work: str, runs: Sequence[Run], labels: dict[int, str]) -> list[str]:
    front = pareto_front(runs)
    figure = memory_figure(runs)
    bytes_of, time_of = (
        byte_unit([figure_of(run, figure) for run in runs]),
        time_unit([run.latency_ms.p50 for run in runs]),
    )

    def mark(number: int, run: Run) -> Mark:
        spread = spread_of(run, "latency_ms.p50")
        return Mark(
            x=figure_of(run, figure) / bytes_of.divisor,
            y=run.latency_ms.p50 / time_of.divisor,
            low=spread.low / time_of.divisor if spread else None,
            high=spread.high / time_of.divisor if spread else None,
            label=str(number),
            title=f"{labels[id(run)]}: {size_text(figure_of(run, figure))}, {time_text(run.latency_ms.p50)}",
            colour=colour_of(run),
            hollow=run not in front,
        )

    marks = {id(run): mark(number, run) for number, run in enumerate(runs, start=1)}
    series = [
        Series(
            name="Pareto front: no run takes less of both" if len(front) > 1 else "",
            colour="tied",
            dashed=True,
            dots=False,
            marks=[marks[id(run)] for run in front],
        ),
        Series(name="", colour="tied", joined=False, marks=list(marks.values())),
    ]
    numbered = [
        f"<li{' class=front' if run in front else ''}>{escape(labels[id(run)])}</li>"
        for run in runs
    ]
    named = ", ".join(labels[id(run)] for run in front)
    return [
        "<figure>",
        f"<figcaption><b>{escape(work or 'All runs')}</b>: median latency against "
        f"{FIGURE_NAMES[figure]}; "
        "filled: on the front</figcaption>",
        *chart(
            series,
            across=Axis(name=f"{FIGURE_NAMES[figure]} ({bytes_of.name})", logarithmic=True),
            upward=Axis(name=f"latency ({time_of.name})", logarithmic=True),
        ),
        '<ol class="legend numbered">',
        *numbered,
        "</ol>",
        f'<p class="note">On the front: {escape(named)}.</p>',
        "</figure>",
    ]
