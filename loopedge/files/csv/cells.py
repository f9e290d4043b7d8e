"""What the cells of a CSV mean, wherever one is read: training and running must agree on it."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.files.csv.form import CsvForm

__all__ = ["MISSING", "find_delimiter", "is_missing", "parse_numbers", "without_stand_ins"]

MISSING = {"", "?", "-", "na", "n/a", "nan", "+nan", "-nan", "null", "none"}
"""Texts, in lower case, that stand for a missing number."""
DELIMITERS = ",;\t"
QUOTED = re.compile(r'"[^"]*("|$)')
"""A quoted name of a header; a separator inside it separates nothing."""
PLAIN = CsvForm()


def is_missing(cell: str, form: CsvForm = PLAIN) -> bool:
    """Tell whether a cell stands for a missing number."""
    text = cell.strip()
    return text.lower() in MISSING or text in form.na_values


def find_delimiter(first_line: str, decimal: str = ".") -> str:
    """Return what separates the cells: the comma, semicolon or tab that the first line has most of.

    Args:
        first_line: With its quotes.
        decimal: What stands before decimals; it separates cells only where nothing else does.
    """
    plain = QUOTED.sub("", first_line)
    others = [character for character in DELIMITERS if character != decimal]
    found = max(others, key=plain.count)
    return decimal if found not in plain and decimal in DELIMITERS and decimal in plain else found


def parse_numbers(
    cells: Sequence[str], form: CsvForm = PLAIN
) -> tuple[npt.NDArray[Any], list[int]]:
    """Return the numbers in cells, NaN where one is missing, and the places of other texts.

    A number is written in ASCII. Python also reads ``1_000`` and the digits of other scripts: no table means them.
    Digits are grouped by three or not at all.

    Returns:
        float64 (cells,), and the places in ascending order.
    """
    joined = "".join(cells)
    plain = form.decimal == "." and form.thousands is None
    if plain and joined.isascii() and "_" not in joined:
        try:
            return without_stand_ins(np.array(list(map(float, cells)), np.float64), form), []
        except ValueError:  # one is missing, or is not a number
            pass
    values = np.full(len(cells), math.nan)
    others = []
    spelled = None if plain else _spelling(form)
    for place, cell in enumerate(cells):
        text = cell.strip()
        if text.lower() in MISSING or text in form.na_values:
            continue
        number = text if spelled is None else _in_python(text, spelled, form)
        try:
            values[place] = float(number)
        except ValueError:
            others.append(place)
            continue
        if "_" in number or not number.isascii():
            others.append(place)
    return without_stand_ins(values, form), others


def without_stand_ins(values: npt.NDArray[Any], form: CsvForm) -> npt.NDArray[Any]:
    """Put NaN, in place, where a number is one of ``na_values``: -999 is -999.0 too."""
    for text in form.na_values:
        try:
            number = float(text)
        except ValueError:
            continue
        values[values == number] = math.nan
    return values


def _spelling(form: CsvForm) -> re.Pattern[str]:
    """Return how a number is written: groups, a decimal sign, an exponent."""
    decimal = re.escape(form.decimal)
    whole = r"\d+"
    if form.groupers:
        whole = rf"\d{{1,3}}([{re.escape(form.groupers)}]\d{{3}})+|\d+"
    return re.compile(
        rf"[+-]?(({whole})({decimal}\d*)?|{decimal}\d+)(e[+-]?\d+)?|[+-]?(inf|infinity)",
        re.IGNORECASE,
    )


def _in_python(text: str, spelled: re.Pattern[str], form: CsvForm) -> str:
    """Return a number as Python writes it; empty where it is none."""
    if spelled.fullmatch(text) is None:
        return ""
    for grouper in form.groupers:
        text = text.replace(grouper, "")
    return text.replace(form.decimal, ".")
