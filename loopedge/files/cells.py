"""What the cells of a CSV mean, wherever one is read: training and running must agree on it."""

import re

__all__ = ["MISSING", "find_delimiter", "is_missing"]

MISSING = {"", "?", "-", "na", "n/a", "nan", "+nan", "-nan", "null", "none"}
"""Texts, in lower case, that stand for a missing number."""
DELIMITERS = ",;\t"
QUOTED = re.compile(r'"[^"]*("|$)')
"""A quoted name of a header; a separator inside it separates nothing."""


def is_missing(cell: str) -> bool:
    """Tell whether a cell stands for a missing number."""
    return cell.strip().lower() in MISSING


def find_delimiter(first_line: str) -> str:
    """Return what separates the cells: the comma, semicolon or tab that the first line has most of."""
    return max(DELIMITERS, key=QUOTED.sub("", first_line).count)
