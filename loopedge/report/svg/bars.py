"""Horizontal bars with their name and value above, and columns of parts side by side, as inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Part", "bar", "columns"]

WIDTH = 1000
"""Of a bar, in SVG units; the page stretches it."""
COLUMNS_HEIGHT = 100
GAP = 0.15
"""Of the width of a column."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar or column: class of its colour, what it is, and its share of the largest."""

    colour: str
    title: str
    share: float


def bar(name: str, value: str, parts: Sequence[Part]) -> list[str]:
    """Return one labelled bar; a share of 1 is the whole width."""
    lines = [
        f'<div class="row"><span>{escape(name)}</span><span>{escape(value)}</span></div>',
        f'<svg viewBox="0 0 {WIDTH} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{name}: {value}")}">',
        f'<rect class="track" width="{WIDTH}" height="1"/>',
    ]
    left = 0.0
    for part in parts:
        length = max(WIDTH * part.share, 0.0)
        lines.append(
            f'<rect class="{part.colour}" x="{left:.1f}" width="{length:.1f}" height="1">'
            f"<title>{escape(part.title)}</title></rect>"
        )
        left += length
    return [*lines, "</svg>"]


def columns(name: str, stacks: Sequence[Sequence[Part]]) -> list[str]:
    """Return stacks of parts side by side, from the left; a share of 1 is the whole height."""
    step = WIDTH / max(len(stacks), 1)
    lines = [
        f'<svg class="columns" viewBox="0 0 {WIDTH} {COLUMNS_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(name)}">',
    ]
    for index, stack in enumerate(stacks):
        x, base = (index + GAP / 2) * step, float(COLUMNS_HEIGHT)
        for part in stack:
            height = max(COLUMNS_HEIGHT * part.share, 0.0)
            base -= height
            lines.append(
                f'<rect class="{part.colour}" x="{x:.1f}" y="{base:.2f}" width="{step * (1 - GAP):.1f}" '
                f'height="{height:.2f}"><title>{escape(part.title)}</title></rect>'
            )
    return [*lines, "</svg>"]
