"""What a person should know of a table before they trust what is computed from it."""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Finding", "FindingKind"]

FindingKind = Literal[
    "constant",
    "drift",
    "encoding",
    "gap",
    "interval",
    "label",
    "left-out",
    "mase",
    "precision",
    "series",
    "shape",
    "time",
]
"""What a finding is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know of a table: training, the pilot, profiling and running say it alike.

    Args:
        kind: What it is about.
        message: What, in which table rows and columns, measured against what.
        hint: The option that acts on it.
    """

    kind: FindingKind
    message: str
    hint: str | None = None

    @property
    def line(self) -> str:
        """The message, and behind it what to do."""
        return self.message if self.hint is None else f"{self.message} ({self.hint})"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}
