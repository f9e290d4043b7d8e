"""Count what became int8 and say why the rest did not."""

from dataclasses import dataclass, field
from typing import Any

from loopedge.graph.core.names import is_core_name

__all__ = ["Coverage", "Skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A linear that stays in float, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Coverage:
    """The linears of a graph: quantized ones by node name, the others with their reason.

    ``not_worth`` are those that stay in float although they need not: too small to gain by it.
    ``bytes`` are those of their weights in integers, ``total_bytes`` those of all their weights, as stored.
    """

    quantized: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    not_worth: list[str] = field(default_factory=list)
    bytes: int = 0
    total_bytes: int = 0

    @property
    def total(self) -> int:
        """Linears in the graph."""
        return len(self.quantized) + len(self.skipped)

    @property
    def share(self) -> float:
        """Quantized linears against all, 0 to 1."""
        return len(self.quantized) / self.total if self.total else 0.0

    def core(self) -> "Coverage":
        """Return the part of the coverage that lies in the core, or all where no core is known."""
        part = Coverage(
            quantized=[name for name in self.quantized if is_core_name(name)],
            skipped=[item for item in self.skipped if is_core_name(item.name)],
            not_worth=[name for name in self.not_worth if is_core_name(name)],
        )
        return part if part.total else self

    def to_json(self) -> dict[str, Any]:
        """Return the keys ``matmuls`` and ``embeddings`` of docs/cli.md."""
        return {
            "quantized": len(self.quantized),
            "total": self.total,
            "bytes": self.bytes,
            "total_bytes": self.total_bytes,
            "skipped": [{"name": item.name, "reason": item.reason} for item in self.skipped],
        }
