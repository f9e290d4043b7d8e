"""A row per name with a dot on a common scale, its spread and its value, as one inline SVG.

Places across are percents and letters have their own size: the picture keeps its height and its letters on a phone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from loopedge.report.svg.axes import axis_of

__all__ = ["Dot", "dots"]

ROW, TRACK, FOOT = 42, 27, 26
"""Pixels: of a row, from its top to its dot, and below the rows."""
TICK = 8
"""Half the height of the level in a row: it crosses no name."""
LEFT, RIGHT = 2.0, 98.0
"""Percent of the width between which the scale lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A row: its name, value, spread to either side, the value as text, and a class for its colour."""

    name: str
    value: float
    spread: float | None
    text: str
    kind: str


def dots(
    rows: Sequence[Dot], *, level: float | None, name: str, score: Callable[[float], str]
) -> list[str]:
    """Return the lines of the SVG.

    Args:
        rows: From the top.
        level: A value to compare with, as an upright line in each row.
        name: What the picture shows, for those who cannot see it.
        score: Writes a value of the scale.
    """
    ends = [row.value + sign * (row.spread or 0.0) for row in rows for sign in (-1, 1)]
    ends += [level] if level is not None else []
    first, last, step = axis_of(min(ends), max(ends))
    width = (RIGHT - LEFT) / (last - first)

    def place(value: float) -> float:
        return LEFT + (value - first) * width

    floor = ROW * len(rows)
    heard = "; ".join(f"{row.name} {row.text}" for row in rows)
    lines = [
        f'<svg class="dots" width="100%" height="{floor + FOOT}" role="img" '
        f'aria-label="{escape(f"{name}: {heard}")}">'
    ]
    lines += _scale(first, last, step, place, floor, score)
    for number, row in enumerate(rows):
        if level is not None:
            x, y = place(level), ROW * number + TRACK
            lines.append(
                f'<line class="level" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y - TICK}" y2="{y + TICK}"/>'
            )
        lines += _row(row, ROW * number, place)
    return [*lines, "</svg>"]


def _scale(
    first: float,
    last: float,
    step: float,
    place: Callable[[float], float],
    floor: int,
    score: Callable[[float], str],
) -> list[str]:
    """Draw the ticks; the outermost are named inside the picture."""
    count = round((last - first) / step)
    every = 1 if count <= 4 else 2
    lines = []
    for number in range(0, count + 1, every):
        value = first + number * step
        x = place(value)
        anchor = "start" if x < 8 else "end" if x > 92 else "middle"
        text = score(0.0 if abs(value) < step / 1e6 else value)
        lines += [
            f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{floor + 4}"/>',
            f'<text class="tick {anchor}" x="{x:.2f}%" y="{floor + 19}">{escape(text)}</text>',
        ]
    return lines


def _row(row: Dot, top: int, place: Callable[[float], float]) -> list[str]:
    x, y = place(row.value), top + TRACK
    spread = row.spread or 0.0
    whisker = (
        [
            f'<line class="whisker" x1="{place(row.value - spread):.2f}%" '
            f'x2="{place(row.value + spread):.2f}%" y1="{y}" y2="{y}"/>'
        ]
        if spread > 0
        else []
    )
    return [
        f'<g class="{row.kind}"><title>{escape(f"{row.name}: {row.text}")}</title>',
        f'<text class="name" x="0" y="{top + 14}">{escape(row.name)}</text>',
        f'<text class="value end" x="100%" y="{top + 14}">{escape(row.text)}</text>',
        f'<line class="track" x1="0" x2="100%" y1="{y}" y2="{y}"/>',
        *whisker,
        f'<circle cx="{x:.2f}%" cy="{y}" r="6"/></g>',
    ]
