"""Columns of few different texts, labels and names of series, as codes; what is missing in them is counted."""

import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.files.arrays import Array

__all__ = ["Encoder", "Texts", "alike_finding", "plain_number"]

MOST_NAMED = 4
"""Texts that a finding names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """A column of few different texts.

    Args:
        names: The texts, in the order of their first table rows.
        codes: int32 (table rows,): the place in ``names``; -1 where the text is missing.
    """

    names: tuple[str, ...]
    codes: Array


class Encoder:
    """Turns texts into codes while they come.

    Attributes:
        missing: How often each text was found that stands for a missing one; None: null.
        first_missing: Where the first stands, for people.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes = array("i")
        self.missing: Counter[str | None] = Counter()
        self.first_missing: str | None = None

    def add(self, texts: Sequence[str | None], unnamed: frozenset[str]) -> Array:
        """Take further texts; return their codes, -1 for those that are missing or ``unnamed``."""
        known = self._known
        codes = array(
            "i",
            [
                -1 if text is None or text in unnamed else known.setdefault(text, len(known))
                for text in texts
            ],
        )
        self._codes.extend(codes)
        found = np.frombuffer(codes, np.int32)
        if (found < 0).any():
            self.missing.update(texts[row] for row in np.flatnonzero(found < 0).tolist())
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The texts, in the order in which they came."""
        return tuple(self._known)

    def texts(self) -> Texts:
        """Return what came."""
        codes = np.frombuffer(self._codes, np.int32) if self._codes else np.empty(0, np.int32)
        return Texts(names=self.names, codes=codes)

    def left_out(self, column: str) -> tuple[Finding, ...]:
        """Say how many texts are missing, as what, and where the first stands."""
        total = sum(self.missing.values())
        if not total:
            return ()
        kinds = [f"{count} {_shown(text)}" for text, count in self.missing.most_common(MOST_NAMED)]
        message = (
            f"{total} of {len(self._codes)} table rows have no label in column {column!r} ({', '.join(kinds)}), "
            f"the first is {self.first_missing}; no label is learned there"
        )
        return (Finding(kind="left-out", message=message),)


def _shown(text: str | None) -> str:
    return {None: "null", "": "empty"}.get(text) or repr(text)


def alike_finding(names: Sequence[str], column: str, what: str) -> tuple[Finding, ...]:
    """Say which texts may be meant to be the same: they are equal as numbers, look alike, or but for case and blanks.

    Args:
        names: The texts.
        column: Where they stand.
        what: What they are, in the plural.
    """
    found = []
    reasons = (
        ("are equal as numbers", _number_key, repr),
        ("differ in case or blanks", _fold, repr),
        ("look alike but are other characters", _seen, ascii),
    )
    for reason, key, show in reasons:
        sets: dict[object, list[str]] = defaultdict(list)
        for name in names:
            made = key(name)
            if made is not None:
                sets[made].append(name)
        alike = [group for group in sets.values() if len(group) > 1]
        if not alike:
            continue
        pairs = [" and ".join(map(show, sorted(group))) for group in alike]
        more = f" and {len(pairs) - MOST_NAMED} more" if len(pairs) > MOST_NAMED else ""
        listed = "; ".join(pairs[:MOST_NAMED])
        message = f"{what} of column {column!r} that {reason} stay apart: {listed}{more}"
        found.append(
            Finding(kind="label", message=message, hint="write them alike if they are the same")
        )
    return tuple(found)


def _number_key(text: str) -> int | float | None:
    return plain_number(text)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _seen(text: str) -> str:
    """Return what people see: a letter with a mark may be one character or two."""
    return unicodedata.normalize("NFKC", text)


def plain_number(text: str) -> int | float | None:
    """Return the number that a text is, or None; an integer of many digits is exact."""
    if "_" in text or not text.isascii():  # Python reads 1_000, no table means it
        return None
    for kind in (int, float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        return value if abs(value) < float("inf") else None
    return None
