"""Ways to write a number that a table is not read with, and the option or command that mends each."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from loopedge.files.csv.cells import is_missing
from loopedge.files.csv.form import CsvForm, form_option

__all__ = ["OtherCells", "looks_grouped"]

GROUPED = r"[+-]?\d{1,3}(%s\d{3})+"
MOST_TEXTS = 20
"""Different texts of a column that are remembered."""
GROUPED_BY_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
BELOW_THOUSAND = re.compile(r"[+-]?\d{1,3}")
FEW = 3
"""Different texts that may stand for a missing value."""
SPACES = "\u00a0\u2009\u202f"
CURRENCY = re.compile(r"[$€£¥₹]|\b(EUR|USD|GBP|CHF|JPY)\b")
UNIT = re.compile(r"[+-]?[\d.,'\s]*\d\s*([^\d\s.,'+-][^\d]*\d?)")
"""A number, and the unit behind it."""


@dataclass(slots=True)
class OtherCells:
    """Cells of a column that are not numbers.

    Args:
        message: Of the first.
        name: Of the column.
        count: How many there are.
        texts: The first different ones.
        kinds: How many there are of each way to write a number.
    """

    message: str
    name: str
    count: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, cells: Sequence[str]) -> None:
        """Count further ones, stripped."""
        self.count += len(cells)
        for text in cells:
            if text in self.texts or len(self.texts) < MOST_TEXTS:
                self.texts[text] += 1
            self.kinds[kind_of(text)] += 1

    def hint(self, form: CsvForm, numbers: int) -> str | None:
        """Return what mends the column.

        Args:
            form: How the table is read.
            numbers: How many other cells of the column hold a number.
        """
        first = next(iter(self.texts))
        if first.lstrip("\ufeff") == self.name:
            return (
                "the header stands there again: join files without the headers of all but the first"
            )
        kinds = set(self.kinds)
        if form.decimal != "." and kinds <= {"decimal point", "grouped by point"}:
            if form.thousands is not None:
                return f"write decimals alike, with {form.decimal!r}"
            grouped = all(re.fullmatch(GROUPED % r"\.", text) for text in self.texts)
            return form_option("thousands", ".") if grouped else form_option("decimal", ".")
        if kinds <= {"decimal comma", "comma"} and "decimal comma" in kinds:
            return form_option("decimal", ",")
        if kinds <= {"grouped by comma", "comma"} and "grouped by comma" in kinds:
            return form_option("thousands", ",")
        if kinds == {"comma"}:
            return (
                f"{form_option('thousands', ',')} if {first} is more than a thousand, "
                f"{form_option('decimal', ',')} if it is less"
            )
        if kinds <= {"continental", "grouped by point", "decimal comma", "comma"}:
            return f"{form_option('decimal', ',')} {form_option('thousands', '.')}"
        return self._of_one(self.kinds.most_common(1)[0][0], first, numbers)

    def _of_one(self, kind: str, first: str, numbers: int) -> str | None:
        if kind in {"space", "apostrophe"}:
            return _grouped_by(kind, first)
        if kind != "other":
            return (
                WORDS.get(kind)
                or f"take {kind} out of the cells, for example into the name of the column"
            )
        if numbers and len(self.texts) <= FEW:
            options = (form_option("na_values", text) for text in self.texts)
            return "correct it, or if it stands for a missing value: " + " ".join(options)
        return None


WORDS = {
    "parentheses": "write negative numbers with a minus sign before them",
    "minus behind": "write the minus sign before the number",
    "minus sign": "write the minus sign as - (U+002D)",
    "digits": "write it in the digits 0 to 9",
    "mark": "a byte order mark stands there: join files without their marks",
    "truth": "write 1 for true and 0 for false",
    "clock": "write it as a number, for example of minutes",
}


def looks_grouped(cells: Sequence[str]) -> str | None:
    """Return the first of the numbers whose points may group their digits, where none of a column speaks against it.

    Each number with a point has three digits behind it, each other one is whole and below a thousand, and there are at least
    `FEW` of both.
    """
    grouped: list[str] = []
    whole = 0
    for cell in cells:
        text = cell.strip()
        if GROUPED_BY_POINT.fullmatch(text):
            grouped.append(text)
        elif BELOW_THOUSAND.fullmatch(text):
            whole += 1
        elif not is_missing(text):
            return None
    return grouped[0] if len(grouped) >= FEW and whole >= FEW else None


def kind_of(text: str) -> str:
    """Say in which way a cell is written that is not a number as the table is read."""
    if text.startswith("\ufeff"):
        return "mark"
    if text.isdecimal() and not text.isascii():
        return "digits"
    if text.casefold() in {"true", "false"}:
        return "truth"
    if re.fullmatch(r"\(\s*[\d.,]+\s*\)", text):
        return "parentheses"
    if re.fullmatch(r"[\d.,]+-", text):
        return "minus behind"
    if re.fullmatch(r"[\u2212\u2013]\s*[\d.,]+", text):
        return "minus sign"
    if re.fullmatch(r"\d{1,3}:\d\d(:\d\d(\.\d+)?)?", text):
        return "clock"
    if re.fullmatch(GROUPED % rf"[ {SPACES}]" + r"([.,]\d+)?", text):
        return "space"
    if re.fullmatch(GROUPED % "['\u2019]" + r"([.,]\d+)?", text):
        return "apostrophe"
    if re.fullmatch(GROUPED % r"\." + r",\d+", text):
        return "continental"
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3}){2,}", text):
        return "grouped by point"
    if re.fullmatch(GROUPED % "," + r"(\.\d*)?", text) and (text.count(",") > 1 or "." in text):
        return "grouped by comma"
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
        return "comma"
    if re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
        return "decimal comma"
    if re.fullmatch(r"[+-]?\d*\.\d+(e[+-]?\d+)?", text, re.IGNORECASE):
        return "decimal point"
    if re.search(r"\d", text) and CURRENCY.search(text):
        return "the currency"
    if re.fullmatch(r"[+-]?[\d.,]+\s*%", text):
        return "the percent sign"
    unit = UNIT.fullmatch(text)
    return f"the unit {unit[1].strip()!r}" if unit else "other"


def _grouped_by(kind: str, first: str) -> str:
    options = [form_option("thousands", " " if kind == "space" else "'")]
    if "," in first:
        options.append(form_option("decimal", ","))
    return " ".join(options)
