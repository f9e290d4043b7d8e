"""Say numbers of bytes, times and ratios the way people read them."""

import math

__all__ = ["cosine_text", "error_text", "percent_text", "ratio_text", "size_text", "time_text"]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
STEP = 1024
MS_PER_SECOND = 1000.0


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
