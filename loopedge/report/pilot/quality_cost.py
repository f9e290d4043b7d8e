"""Quality against cost: time and memory of the float and int8 models, and those that none beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from loopedge.report.page import table
from loopedge.report.pilot.facts import statement_of
from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Level, Mark, Series, chart
from loopedge.report.svg.units import byte_unit, time_unit
from loopedge.study.cost import is_busy
from loopedge.study.judging.statements import AgainstBaseline
from loopedge.study.judging.summary import Summary
from loopedge.study.result import PilotResult

__all__ = ["Point", "pareto_front", "quality_cost_section"]

KINDS = ("float", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A measured model: arm, loops and precision, what it costs and what it reaches."""

    arm: str
    loops: int
    kind: str
    cost: float
    quality: float


def pareto_front(points: Sequence[Point], *, higher_is_better: bool) -> list[Point]:
    """Return the points that no other beats in cost and quality, cheapest first."""
    sign = 1.0 if higher_is_better else -1.0
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -sign * one.quality)):
        if not front or sign * point.quality > sign * front[-1].quality:
            front.append(point)
    return front


def quality_cost_section(result: PilotResult, words: Wording) -> list[str]:
    """Return the charts and the table of costs; nothing where no model was measured."""
    if not any(row.cost for row in result.summary):
        return []
    threads = words.count("threads", int(result.profile.get("threads") or 1))
    busy = any(is_busy(row.cost) for row in result.summary)
    note = words("cost_note", threads=threads, batch=result.profile.get("batch") or 1)
    return [
        f"<h2>{escape(words('quality_cost'))}</h2>",
        '<div class="panels">',
        *_panel(result, words, "against_time", "axis_time"),
        *_panel(result, words, "against_memory", "axis_memory"),
        "</div>",
        *([f'<p class="warning">{escape(words("busy_note"))}</p>'] if busy else []),
        *_table(result, words),
        f'<p class="note">{escape(note)}</p>',
    ]


def _panel(result: PilotResult, words: Wording, caption: str, axis: str) -> list[str]:
    points = [
        point for row in result.summary for point in _points(row, memory=axis == "axis_memory")
    ]
    if not points:
        return []
    costs = [point.cost for point in points]
    unit = byte_unit(costs) if axis == "axis_memory" else time_unit(costs)
    arms = list(dict.fromkeys(point.arm for point in points))
    series = [
        Series(
            name=arm,
            colour=f"op{number}",
            marks=[
                Mark(
                    x=point.cost / unit.divisor,
                    y=point.quality,
                    label=str(point.loops) if point.kind == "float" else "",
                    title=f"{arm}, {words.loops(point.loops)}, {point.kind}: {words.score(point.quality)}",
                    hollow=point.kind == "int8",
                )
                for point in points
                if point.arm == arm
            ],
            joined=False,
        )
        for number, arm in enumerate(arms)
    ]
    front = pareto_front(points, higher_is_better=result.higher_is_better)
    marks = [Mark(x=point.cost / unit.divisor, y=point.quality) for point in front]
    series.append(Series(name=words("pareto"), colour="rest", marks=marks, dots=False))
    against = statement_of(result, AgainstBaseline)
    level = Level(name=words.baseline(against.baseline), value=against.value) if against else None
    return [
        "<figure>",
        f"<figcaption>{escape(words(caption, metric=result.metric))}</figcaption>",
        *chart(
            series,
            across=Axis(name=words(axis, unit=unit.name), logarithmic=True, from_zero=False),
            upward=Axis(name=result.metric, from_zero=False),
            level=level,
            words=words.chart,
        ),
        "</figure>",
    ]


def _points(row: Summary, *, memory: bool) -> list[Point]:
    found = []
    for kind, quality in (("float", row.quality), ("int8", row.int8_quality)):
        if kind in row.cost and quality is not None:
            figures = row.cost[kind]
            cost = figures["rss_peak_bytes"] if memory else figures["latency_ms"]["p50"]
            found.append(
                Point(
                    arm=row.arm, loops=row.loops, kind=kind, cost=float(cost), quality=quality.mean
                )
            )
    return found


def _table(result: PilotResult, words: Wording) -> list[str]:
    heads = ("model", "precision", "parameters", "test", "file", "memory", "peak", "p50", "ratio")
    rows = [
        (
            words.candidate({"arm": row.arm, "loops": row.loops}),
            words("untied_twin") if kind == "untied" else kind,
            f"{row.parameters:,}" if kind == "float" and row.parameters else "-",
            words.quality({"float": row.quality, "int8": row.int8_quality}.get(kind)),
            *cost_cells(row.cost[kind], words),
        )
        for row in result.summary
        for kind in (*KINDS, "untied")
        if kind in row.cost
    ]
    return table([words(f"head_{head}") for head in heads], rows)


def cost_cells(figures: dict[str, Any], words: Wording) -> list[str]:
    """Return file, memory after load, peak, median latency and the ratio of times."""
    return [
        words.size(figures["file_bytes"]),
        words.size(figures["anon_bytes"]),
        words.size(figures["rss_peak_bytes"]),
        words.sample_time(figures["latency_ms"]["p50"] / 1000),
        words.ratio(figures["time_ratio"]),
    ]
