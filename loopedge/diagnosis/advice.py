"""One thing to act on, and the option that answers it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Advice", "AdviceKind"]

AdviceKind = Literal[
    "classes",
    "drift",
    "duplicates",
    "forecastability",
    "jumps",
    "lengths",
    "look-back",
    "season",
    "test-split",
    "vocabulary",
]
"""What an advice is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to act on.

    Args:
        kind: What it is about.
        message: What was found, measured against what.
        option: The option of the same task that answers it, as its caller writes it: ``--context 48``; None where no
            option does.
        weight: How much it matters, from 0 to 1: what is shown first.
    """

    kind: AdviceKind
    message: str
    option: str | None = None
    weight: float = 0.5

    @property
    def line(self) -> str:
        """The message, and behind it what to do."""
        return self.message if self.option is None else f"{self.message} ({self.option})"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
