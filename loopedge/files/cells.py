"""What the cells of a CSV mean, wherever one is read: training and running must agree on it."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MISSING", "find_delimiter", "is_missing", "number_hint", "parse_numbers"]

MISSING = {"", "?", "-", "na", "n/a", "nan", "+nan", "-nan", "null", "none"}
"""Texts, in lower case, that stand for a missing number."""
DELIMITERS = ",;\t"
QUOTED = re.compile(r'"[^"]*("|$)')
"""A quoted name of a header; a separator inside it separates nothing."""
DECIMAL_COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def is_missing(cell: str) -> bool:
    """Tell whether a cell stands for a missing number."""
    return cell.strip().lower() in MISSING


def find_delimiter(first_line: str) -> str:
    """Return what separates the cells: the comma, semicolon or tab that the first line has most of."""
    return max(DELIMITERS, key=QUOTED.sub("", first_line).count)


def parse_numbers(cells: Sequence[str]) -> tuple[npt.NDArray[Any], list[int]]:
    """Return the numbers in cells, NaN where one is missing, and the places of other texts.

    A number is written in ASCII, with a point before its decimals. Python also reads ``1_000`` and the
    digits of other scripts: no table means them.

    Returns:
        float64 (cells,), and the places in ascending order.
    """
    joined = "".join(cells)
    if joined.isascii() and "_" not in joined:
        try:
            return np.array(list(map(float, cells)), np.float64), []
        except ValueError:  # one is missing, or is not a number
            pass
    values = np.full(len(cells), math.nan)
    others = []
    for place, cell in enumerate(cells):
        text = cell.strip()
        if text.lower() in MISSING:
            continue
        try:
            values[place] = float(text)
        except ValueError:
            others.append(place)
            continue
        if "_" in text or not text.isascii():
            others.append(place)
    return values, others


def number_hint(cell: str) -> str | None:
    """Return what mends a cell that is not a number, where it is a known way to write one."""
    if DECIMAL_COMMA.fullmatch(cell.strip()):
        return "write decimals with a point, and separate the cells with ; or a tab"
    return None
