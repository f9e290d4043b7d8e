"""Line charts as inline SVG: a few points per line, whiskers for their spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "line_chart"]

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 40
TICKS = 5
SHIFT = 5
"""By how much lines stand beside each other, so that their whiskers do not cover each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line.

    Args:
        name: For the legend.
        points: Place on the horizontal axis to mean and standard deviation (None: a single value).
    """

    name: str
    points: dict[int, tuple[float, float | None]]


def line_chart(
    lines: Sequence[Line],
    *,
    across: str,
    upward: str,
    level: tuple[str, float] | None = None,
) -> list[str]:
    """Return the lines of an SVG and of its legend; places across are evenly spaced.

    Args:
        lines: Up to six.
        across: Name of the horizontal axis.
        upward: Name of the vertical axis.
        level: Name and value of a horizontal line.
    """
    plane = _Plane.of(lines, level)
    if plane is None:
        return ["<p>No run gave a value.</p>"]
    legend = [f'<li><i class="op{i}"></i>{escape(line.name)}</li>' for i, line in enumerate(lines)]
    shown = level is not None and plane.low <= level[1] <= plane.high
    if level is not None:
        where = "" if shown else ", off the chart"
        legend.append(f'<li><i class="level"></i>{escape(level[0])} ({level[1]:.4g}{where})</li>')
    return [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{upward} against {across}")}">',
        *plane.axes(across),
        *(plane.level(*level) if level is not None and shown else []),
        *(part for i, line in enumerate(lines) for part in plane.line(line, i, len(lines))),
        "</svg>",
        '<ul class="legend">',
        *legend,
        "</ul>",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """Where places and values stand on the picture."""

    places: list[int]
    low: float
    high: float
    step: float

    @property
    def left(self) -> float:
        """Room for the names of the values."""
        longest = max(len(f"{value:.6g}") for value in self.ticks)
        return max(LEFT, 20.0 + 8.0 * longest)

    @property
    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [self.low + tick * self.step for tick in range(count + 1)]

    @classmethod
    def of(cls, lines: Sequence[Line], level: tuple[str, float] | None) -> "_Plane | None":
        """Return the plane that holds everything; None where there is nothing finite."""
        values = [
            mean + sign * (spread or 0)
            for line in lines
            for mean, spread in line.points.values()
            for sign in (-1, 1)
        ]
        if level is not None and values and fits(level[1], values):
            values.append(level[1])
        places = sorted({place for line in lines for place in line.points})
        if not places or not all(map(math.isfinite, values)):
            return None
        low, high, step = axis_of(min(values), max(values))
        return cls(places=places, low=low, high=high, step=step)

    def x_of(self, place: int) -> float:
        inner = WIDTH - self.left - RIGHT
        return self.left + inner * (self.places.index(place) + 0.5) / len(self.places)

    def y_of(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    def axes(self, across: str) -> list[str]:
        """Draw the grid and the names of places and values."""
        parts = []
        for value in self.ticks:
            y = self.y_of(value)
            parts += [
                self._horizontal("grid", y) + "/>",
                f'<text class="end" x="{self.left - 8:.0f}" y="{y + 4:.1f}">{value:.6g}</text>',
            ]
        middle = (self.left + WIDTH - RIGHT) / 2
        return [
            *parts,
            *(
                f'<text class="middle" x="{self.x_of(place):.1f}" y="{HEIGHT - 20}">{place}</text>'
                for place in self.places
            ),
            f'<text class="middle" x="{middle}" y="{HEIGHT - 3}">{escape(across)}</text>',
        ]

    def level(self, name: str, value: float) -> list[str]:
        """Draw a horizontal line."""
        title = f"<title>{escape(name)}: {value:.4g}</title>"
        return [f"{self._horizontal('level', self.y_of(value))}>{title}</line>"]

    def _horizontal(self, name: str, y: float) -> str:
        return f'<line class="{name}" x1="{self.left:.0f}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'

    def line(self, line: Line, index: int, count: int) -> list[str]:
        """Draw a line, its points and their whiskers."""
        shift = SHIFT * (index - (count - 1) / 2)
        told = [(self.x_of(p) + shift, p, *line.points[p]) for p in sorted(line.points)]
        path = " ".join(f"{x:.1f},{self.y_of(mean):.1f}" for x, _, mean, _ in told)
        parts = [f'<polyline class="op{index}" points="{path}"/>']
        for x, place, mean, spread in told:
            around = f" ± {spread:.2g}" if spread else ""
            if spread:
                parts.append(
                    f'<line class="whisker op{index}" x1="{x:.1f}" x2="{x:.1f}" '
                    f'y1="{self.y_of(mean + spread):.1f}" y2="{self.y_of(mean - spread):.1f}"/>'
                )
            parts.append(
                f'<circle class="op{index}" cx="{x:.1f}" cy="{self.y_of(mean):.1f}" r="4">'
                f"<title>{escape(line.name)}, {place}: {mean:.4g}{around}</title></circle>"
            )
        return parts


def fits(level: float, values: Sequence[float]) -> bool:
    """Tell whether a level is near enough to the values not to squeeze them into a line."""
    low, high = min(values), max(values)
    room = max(high - low, 0.02 * abs(high))
    return math.isfinite(level) and low - 3 * room <= level <= high + 3 * room


def axis_of(low: float, high: float) -> tuple[float, float, float]:
    """Return round bounds that hold two values, and a round step between their ticks."""
    span = (high - low) or abs(high) or 1.0
    raw = span / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    if last - first < 2:  # equal values stand in the middle
        first, last = first - 1, last + 1
    return first * step, last * step, step
