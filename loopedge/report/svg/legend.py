"""The names of colours below a chart."""

from collections.abc import Sequence
from html import escape

__all__ = ["legend"]


def legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names of colours: pairs of class and name."""
    lines = [f'<li><i class="{colour}"></i>{escape(name)}</li>' for colour, name in entries]
    return ['<ul class="legend">', *lines, "</ul>"]
