"""Points and lines over two axes of numbers, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from loopedge.report.charts import axis_of

__all__ = ["Axis", "Mark", "Series", "plane_chart"]

WIDTH, HEIGHT = 560, 320
RIGHT, TOP, BOTTOM = 18, 16, 52
TEXT = 11.0
"""Width of a digit, at the larger size of letters that a phone gets."""
LOG_FROM = 8.0
"""Axes whose values differ by more than this factor are logarithmic, where they may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis.

    Args:
        name: With its unit.
        logarithmic: May be logarithmic, where the values span much.
        from_zero: A linear axis begins at zero.
        ticks: Values to name; default: round ones.
    """

    name: str
    logarithmic: bool = False
    from_zero: bool = True
    ticks: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point, with the range of its height; ``label`` is drawn beside it, ``title`` is told on hover."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    title: str = ""
    colour: str | None = None
    hollow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Marks of one colour; ``name`` is empty where the legend does not tell it."""

    name: str
    colour: str
    marks: Sequence[Mark]
    joined: bool = True
    dashed: bool = False
    dots: bool = True


def plane_chart(series: Sequence[Series], *, across: Axis, upward: Axis) -> list[str]:
    """Return the lines of an SVG and of its legend.

    Args:
        series: At least one mark among them.
        across: The horizontal axis.
        upward: The vertical axis.
    """
    marks = [mark for one in series for mark in one.marks]
    heights = [value for m in marks for value in (m.y, m.low, m.high) if value is not None]
    if not marks or not all(map(math.isfinite, [*heights, *(mark.x for mark in marks)])):
        return ['<p class="note">No run gave a value.</p>']
    rise = _Scale.of(upward, heights)
    left = 42.0 + TEXT * max(len(rise.text(tick)) for tick in rise.ticks)
    plane = _Plane(
        run=_Scale.of(across, [mark.x for mark in marks], start=left, end=WIDTH - RIGHT),
        rise=rise,
    )
    named = [one for one in series if one.name]
    return [
        f'<svg class="plane" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{upward.name} against {across.name}")}">',
        *plane.axes(across, upward),
        *(line for one in series for line in plane.series(one)),
        *plane.labels([mark for one in series if one.dots for mark in one.marks]),
        "</svg>",
        *(['<ul class="legend">'] if named else []),
        *(_legend(one) for one in named),
        *(["</ul>"] if named else []),
    ]


def _legend(series: Series) -> str:
    kind = "dash" if series.dashed else series.colour
    return f'<li><i class="{kind}"></i>{escape(series.name)}</li>'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Values of an axis to places on the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        axis: Axis,
        values: Sequence[float],
        *,
        start: float = HEIGHT - BOTTOM,
        end: float = TOP,
    ) -> "_Scale":
        low, high = min(values), max(values)
        if axis.logarithmic and low > 0 and high / low > LOG_FROM:
            ticks = _log_ticks(low, high)
            low, high = min(low / 1.15, ticks[0]), max(high * 1.15, ticks[-1])
            return cls(low=low, high=high, start=start, end=end, log=True, ticks=ticks)
        first, last, step = axis_of(min(low, 0.0) if axis.from_zero else low, high)
        if axis.ticks is not None:
            room = (high - low) * 0.04 or 1.0
            bounds = (min(axis.ticks) - room, max(axis.ticks) + room)
            ticks = list(axis.ticks)
        else:
            bounds = (max(first, 0.0) if low >= 0 else first, last)
            ticks = [first + step * i for i in range(round((last - first) / step) + 1)]
            ticks = [tick for tick in ticks if tick >= bounds[0] - step / 1e6]
        return cls(low=bounds[0], high=bounds[1], start=start, end=end, log=False, ticks=ticks)

    def place(self, value: float) -> float:
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + part * (self.end - self.start)

    @staticmethod
    def text(tick: float) -> str:
        return f"{tick:.10g}" if abs(tick) >= 1e-9 else "0"


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within, or around, two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low / 1.05 <= tick <= high * 1.05]
    if len(inside) > 7:
        inside = [tick for tick in inside if f"{tick:e}".startswith("1")]
    return inside if len(inside) > 1 else [low, high]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """Draws onto two scales."""

    run: _Scale
    rise: _Scale

    def axes(self, across: Axis, upward: Axis) -> list[str]:
        """Draw the grid, the names of ticks (those that have room) and of the axes."""
        left, right, floor = self.run.start, self.run.end, self.rise.start
        parts = []
        for tick in self.rise.ticks:
            y = self.rise.place(tick)
            parts.append(
                f'<line class="grid" x1="{left:.0f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text class="end" x="{left - 7:.0f}" y="{y + 4.5:.1f}">{self.rise.text(tick)}</text>'
            )
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

    def series(self, series: Series) -> list[str]:
        """Draw the line, the ranges and the points."""
        parts = []
        if series.joined and len(series.marks) > 1:
            path = " ".join(
                f"{self.run.place(m.x):.1f},{self.rise.place(m.y):.1f}" for m in series.marks
            )
            kind = "dashed" if series.dashed else series.colour
            parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for mark in series.marks if series.dots else ():
            x, y = self.run.place(mark.x), self.rise.place(mark.y)
            colour = mark.colour or series.colour
            if mark.low is not None and mark.high is not None and mark.high > mark.low:
                parts.append(
                    f'<line class="whisker {colour}" x1="{x:.1f}" x2="{x:.1f}" '
                    f'y1="{self.rise.place(mark.low):.1f}" y2="{self.rise.place(mark.high):.1f}"/>'
                )
            kind = f"{colour} hollow" if mark.hollow else colour
            parts.append(
                f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
                f"<title>{escape(mark.title or series.name)}</title></circle>"
            )
        return parts

    def labels(self, marks: Sequence[Mark]) -> list[str]:
        """Write labels where they cover neither a point nor each other, as far as there is room."""
        points = [(self.run.place(m.x), self.rise.place(m.y)) for m in marks]
        taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
        parts = []
        for mark, (x, y) in zip(marks, points, strict=True):
            if not mark.label:
                continue
            width = 0.85 * TEXT * len(mark.label)
            for right, down in _around():
                middle, base = x + right * (9 + width / 2), y + 5 + down
                box = (middle - width / 2, base - 11, middle + width / 2, base + 2)
                inside = box[0] >= self.run.start and box[2] <= WIDTH and box[1] >= 0
                if inside and not any(_meet(box, other) for other in taken):
                    break
            taken.append(box)
            parts.append(
                f'<text class="middle name" x="{middle:.1f}" y="{base:.1f}">{escape(mark.label)}</text>'
            )
        return parts


def _around() -> list[tuple[int, int]]:
    """Return places around a point: side and height, nearest first."""
    near = [(1, 0), (0, -15), (-1, 0), (0, 17), (1, -13), (-1, -13), (1, 13), (-1, 13)]
    return [*near, *((side, down) for down in (-28, 28, -42, 42) for side in (0, 1, -1))]


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
