"""Points, lines and whiskers over two axes, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loopedge.report.svg.axes import Axis, Scale, scale_of
from loopedge.report.svg.labels import place_labels
from loopedge.report.svg.legend import legend

__all__ = ["HEIGHT", "WIDTH", "ChartWords", "Level", "Mark", "Series", "chart"]

WIDTH, WIDE, HEIGHT = 560, 720, 320
RIGHT, TOP, BOTTOM = 18, 16, 52
TEXT = 11.0
"""Width of a digit, at the larger size of letters that a phone gets."""
BESIDE = 8.0
"""By how much series stand beside each other on an even axis, so that their whiskers do not meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point, with the range of its height; ``label`` is drawn beside it, ``title`` shows on hover.

    One without a ``dot`` only bends the line.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    title: str = ""
    colour: str | None = None
    hollow: bool = False
    dot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Marks of one colour; one without a ``name`` is not in the legend, the line of a ``broken`` one is dashed."""

    name: str
    colour: str
    marks: Sequence[Mark]
    joined: bool = True
    dashed: bool = False
    dots: bool = True
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartWords:
    """What a chart says beside names and numbers."""

    empty: str = "No run gave a value."
    off_chart: str = "{name} ({value}, off the chart)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A height to compare with, as a dashed line where it is near the values, else in the legend alone."""

    name: str
    value: float

    def fits(self, heights: Sequence[float]) -> bool:
        """Tell whether it is near enough not to squeeze the values into a line."""
        low, high = min(heights), max(heights)
        room = max(high - low, 0.02 * abs(high))
        return math.isfinite(self.value) and low - 3 * room <= self.value <= high + 3 * room


def chart(
    series: Sequence[Series],
    *,
    across: Axis,
    upward: Axis,
    level: Level | None = None,
    wide: bool = False,
    divide: float | None = None,
    words: ChartWords | None = None,
) -> list[str]:
    """Return the lines of an SVG and of its legend.

    Args:
        series: What is drawn; without a mark among them a line of text says so.
        across: The horizontal axis.
        upward: The vertical axis.
        level: A height to compare with.
        wide: For a figure that has the width of the page to itself.
        divide: Where an upright line parts what was from what comes.
        words: In another language.
    """
    said = words or ChartWords()
    marks = [mark for one in series for mark in one.marks]
    heights = [value for m in marks for value in (m.y, m.low, m.high) if value is not None]
    if not marks or not all(map(math.isfinite, [*heights, *(mark.x for mark in marks)])):
        return [f'<p class="note">{escape(said.empty)}</p>']
    shown = level if level is not None and level.fits(heights) else None
    width = WIDE if wide else WIDTH
    rise = scale_of(
        upward, [*heights, *([shown.value] if shown else [])], start=HEIGHT - BOTTOM, end=TOP
    )
    left = 42.0 + TEXT * max(len(rise.text(tick)) for tick in rise.ticks)
    run = scale_of(across, [mark.x for mark in marks], start=left, end=width - RIGHT)
    plane = _Plane(run=run, rise=rise, width=width)
    return [
        f'<svg class="{"chart wide" if wide else "chart"}" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{upward.name} against {across.name}")}">',
        *plane.axes(across, upward),
        *(plane.level(shown) if shown else []),
        *(plane.divide(divide) if divide is not None else []),
        *(line for one, shift in _beside(series, run) for line in plane.series(one, shift)),
        *plane.labels([mark for one in series if one.dots for mark in one.marks]),
        "</svg>",
        *_legend(series, level, shown, said),
    ]


def _beside(series: Sequence[Series], run: Scale) -> list[tuple[Series, float]]:
    """Return by how much each series stands aside."""
    middle = (len(series) - 1) / 2
    return [(one, BESIDE * (i - middle) if run.steps else 0.0) for i, one in enumerate(series)]


def _legend(
    series: Sequence[Series], level: Level | None, shown: Level | None, words: ChartWords
) -> list[str]:
    entries = [("dash" if one.dashed else one.colour, one.name) for one in series if one.name]
    if level is not None:
        pattern = "{name} ({value})" if shown else words.off_chart
        entries.append(("dash", pattern.format(name=level.name, value=f"{level.value:.4g}")))
    return legend(entries) if entries else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """Draws onto two scales."""

    run: Scale
    rise: Scale
    width: int

    def axes(self, across: Axis, upward: Axis) -> list[str]:
        """Draw the grid, the names of ticks (those that have room) and of the axes."""
        left, right, floor = self.run.start, self.run.end, self.rise.start
        parts = []
        for tick in self.rise.ticks:
            y = self.rise.place(tick)
            parts += [
                self._across("grid", y) + "/>",
                f'<text class="end" x="{left - 7:.0f}" y="{y + 4.5:.1f}">{self.rise.text(tick)}</text>',
            ]
        free = -math.inf
        for tick in self.run.ticks:
            x, text = self.run.place(tick), self.run.text(tick)
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 5}"/>'
            )
            if x - TEXT * len(text) / 2 >= free:
                parts.append(f'<text class="middle" x="{x:.1f}" y="{floor + 21}">{text}</text>')
                free = x + TEXT * (len(text) / 2 + 1)
        middle = (TOP + floor) / 2
        return [
            *parts,
            f'<text class="middle" x="{(left + right) / 2:.0f}" y="{HEIGHT - 8}">{escape(across.name)}</text>',
            f'<text class="middle" transform="translate(15 {middle:.0f}) rotate(-90)">{escape(upward.name)}</text>',
        ]

    def level(self, level: Level) -> list[str]:
        """Draw a dashed line over the whole width."""
        title = f"<title>{escape(level.name)}: {level.value:.4g}</title>"
        return [f"{self._across('level', self.rise.place(level.value))}>{title}</line>"]

    def divide(self, value: float) -> list[str]:
        """Draw a thin line over the whole height."""
        x = self.run.place(value)
        return [
            f'<line class="grid divide" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self.rise.start:.0f}"/>'
        ]

    def _across(self, kind: str, y: float) -> str:
        return (
            f'<line class="{kind}" x1="{self.run.start:.0f}" x2="{self.run.end}" '
            f'y1="{y:.1f}" y2="{y:.1f}"'
        )

    def series(self, series: Series, shift: float) -> list[str]:
        """Draw the line, the ranges and the points."""
        places = [(self.run.place(m.x) + shift, self.rise.place(m.y), m) for m in series.marks]
        parts = []
        if series.joined and len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
            kind = "dashed" if series.dashed else series.colour
            kind += " broken" if series.broken else ""
            parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for x, y, mark in places if series.dots else ():
            if mark.dot:
                parts += self._mark(x, y, mark, series)
        return parts

    def _mark(self, x: float, y: float, mark: Mark, series: Series) -> list[str]:
        colour = mark.colour or series.colour
        kind = f"{colour} hollow" if mark.hollow else colour
        radius = 4 if self.run.steps else 5  # whiskers of several series must show
        dot = (
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            f"<title>{escape(mark.title or series.name)}</title></circle>"
        )
        if mark.low is None or mark.high is None or mark.high <= mark.low:
            return [dot]
        top, bottom = self.rise.place(mark.high), self.rise.place(mark.low)
        return [
            f'<line class="whisker {colour}" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{bottom:.1f}" y2="{top:.1f}"/>',
            dot,
        ]

    def labels(self, marks: Sequence[Mark]) -> list[str]:
        """Write the labels of marks beside them."""
        points = [(self.run.place(m.x), self.rise.place(m.y), m.label) for m in marks]
        return place_labels(points, left=self.run.start, right=float(self.width))
