"""Say numbers of bytes, times and ratios the way people read them, and read those that people write."""

import math
import re
from collections.abc import Mapping

__all__ = [
    "cosine_text",
    "error_text",
    "percent_text",
    "ratio_text",
    "read_seconds",
    "read_size",
    "score_text",
    "size_text",
    "time_text",
]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
STEP = 1024
MS_PER_SECOND = 1000.0
SIZES = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{
        f"{letter}{end}": 1000**power for power, letter in enumerate("kmgt", 1) for end in ("", "b")
    },
    **{f"{letter}ib": STEP**power for power, letter in enumerate("kmgt", 1)},
}
"""Bytes of a unit: ``MiB`` counts in 1024, ``MB`` and ``M`` in 1000."""
SECONDS = {
    "": 1, "ms": 1e-3, "s": 1, "sec": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600,
}  # fmt: skip


def size_text(size: float) -> str:
    """Say bytes with three digits: ``41.4 MiB``."""
    unit = 0
    while abs(size) >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / STEP, unit + 1
    exact = unit == 0 or abs(size) >= 100
    return f"{size:.0f} {UNITS[unit]}" if exact else f"{size:.3g} {UNITS[unit]}"


def time_text(ms: float) -> str:
    """Say milliseconds with three digits: ``0.42 ms``, ``1.38 s``."""
    if ms >= MS_PER_SECOND:
        return f"{ms / MS_PER_SECOND:.3g} s"
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def ratio_text(ratio: float) -> str:
    """Say a ratio: ``0.98x``, ``11.7x``."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def score_text(score: float | None) -> str:
    """Say a score with four digits, or that it is undefined."""
    return "undefined" if score is None else f"{score:.4g}"


def error_text(error: float | None) -> str:
    """Say a relative error with two digits, ``6.7e-04``, or a dash where there is none."""
    return "-" if error is None else f"{error:.1e}"


def percent_text(part: float) -> str:
    """Say a part as percent, with three digits at most: ``5%``, ``0.25%``."""
    return f"{100 * part:.3g}%"


def cosine_text(cosine: float) -> str:
    """Say a cosine with as many decimals as show two digits of what it lacks to 1, four to nine: ``0.8123``, ``0.999985``."""
    lacks = 1 - cosine
    decimals = 9 if lacks < 1e-8 else max(4, math.ceil(-math.log10(lacks) - 1e-6) + 1)
    return "1" if lacks < 5e-10 else f"{cosine:.{decimals}f}"


def value_text(value: float) -> str:
    """Say a value of a user's column as people write it: ``1,000,280``, ``12.57``, ``4.2e-07``."""
    whole = 1000 <= abs(value) < 1e15
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def read_size(text: float | str) -> int | None:
    """Return the bytes that a person wrote, ``2MiB``, ``1.5 GB`` or a number; None where it is not one byte at least."""
    size = _number_with_unit(text, SIZES)
    return None if size is None or size < 1 else int(size)


def read_seconds(text: float | str) -> float | None:
    """Return the seconds that a person wrote, ``50ms``, ``60s``, ``5min`` or a number; None where it is no time above 0."""
    seconds = _number_with_unit(text, SECONDS)
    return seconds or None


def _number_with_unit(text: float | str, units: Mapping[str, float]) -> float | None:
    """Return a number times its unit; None where the text is none, or not finite."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", str(text).lower())
    if found is None or found[2] not in units:
        return None
    value = float(found[1]) * units[found[2]]
    return value if math.isfinite(value) else None
