"""The difference that does not matter: a share of the strongest baseline's error, or a number in the metric's unit."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from loopedge.errors import InputError
from loopedge.options import option, option_name

__all__ = ["DEFAULT_MARGIN", "Margin", "make_margin", "read_margin"]

DEFAULT_MARGIN = "2%"
NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
LEAST_OF_ONE_SAMPLE = 1000
"""Samples that a test split is taken to have where their number is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The difference that does not matter.

    Args:
        value: In the unit of the metric.
        text: As it was asked for.
        of: What a share is of; empty for a number in the metric's unit.
    """

    value: float
    text: str
    of: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_margin(margin: str | float) -> tuple[float, bool]:
    """Return the number, and whether it is a share (0.02 for ``2%``).

    Raises:
        InputError: It is neither, or negative.
    """
    text = str(margin).strip()
    found = re.fullmatch(rf"({NUMBER})\s*(%?)", text)
    number = float(found[1]) if found else math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{option_name('margin')} is {text!r}: a share of the baseline's error such as 2% is needed, "
            "or a number from 0 in the unit of the metric",
            hint=option("margin", DEFAULT_MARGIN),
        )
    share = bool(found and found[2])
    return (number / 100 if share else number), share


def make_margin(
    margin: str | float,
    *,
    reference: float | None,
    name: str,
    higher_is_better: bool,
    samples: int | None = None,
) -> Margin:
    """Return the margin in the unit of the metric.

    The error that a share is taken of is the metric itself where lower is better. Where higher is better it is what is
    missing to 1 (of a metric above 1, the metric), but no less than leaves a margin of one sample of the test split:
    a baseline that is right on every sample has no error to take a share of, and less than a sample cannot be seen.

    Args:
        margin: As `PilotOptions.margin`.
        reference: The strongest baseline's metric; None where there is none, then a share has nothing to be of.
        name: What the reference is, in words.
        higher_is_better: Of the metric.
        samples: Of the test split.

    Raises:
        InputError: It cannot be read.
    """
    number, share = read_margin(margin)
    text = str(margin).strip()
    if not share:
        return Margin(value=number, text=text, of="")
    if reference is None or not math.isfinite(reference):
        return Margin(value=0.0, text=text, of="")
    if not higher_is_better or reference > 1:
        return Margin(value=number * abs(reference), text=text, of=f"the error of {name}")
    least = 1 / (samples or LEAST_OF_ONE_SAMPLE)
    value = max(number * (1 - reference), least) if number else 0.0
    return Margin(value=value, text=text, of=f"the error of {name}")
