"""Labels of points: where they cover neither a point nor each other, as far as there is room."""

from collections.abc import Sequence
from html import escape

__all__ = ["place_labels"]

LETTER = 9.35
"""Width of a letter of a label, at the larger size that a phone gets."""

Box = tuple[float, float, float, float]

NEAR = ((1, 0), (0, -15), (-1, 0), (0, 17), (1, -13), (-1, -13), (1, 13), (-1, 13))
AROUND = (*NEAR, *((side, down) for down in (-28, 28, -42, 42) for side in (0, 1, -1)))
"""Places around a point: side and height, nearest first."""


def place_labels(
    points: Sequence[tuple[float, float, str]], *, left: float, right: float
) -> list[str]:
    """Return the lines of SVG that write the labels.

    Args:
        points: Places on the picture, each with its label; an empty one is not written.
        left: Where the room begins.
        right: Where it ends.
    """
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    parts = []
    for x, y, label in points:
        if not label:
            continue
        width = LETTER * len(label)
        for side, down in AROUND:
            middle, base = x + side * (9 + width / 2), y + 5 + down
            box = (middle - width / 2, base - 11, middle + width / 2, base + 2)
            inside = box[0] >= left and box[2] <= right and box[1] >= 0
            if inside and not any(_meet(box, other) for other in taken):
                break
        taken.append(box)
        parts.append(
            f'<text class="middle name" x="{middle:.1f}" y="{base:.1f}">{escape(label)}</text>'
        )
    return parts


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
