"""What a packaging wrote."""

from dataclasses import asdict, dataclass
from typing import Any

from loopedge.files.targets import FileSize

__all__ = ["PackageResult", "PackagedModel", "PackagedVector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model of the bundle; ``clients`` are those that take it, one with a provider as ``web/webgpu``."""

    id: str
    file: str
    form: str | None
    bytes: int
    clients: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedVector:
    """A test vector, and what its check gave here: the worst of all models of the bundle."""

    name: str
    check: str
    limit: float
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageResult:
    """A bundle that was written. ``reference`` is the float model that a quantized one was judged against."""

    path: str
    source: str
    reference: str | None
    name: str
    clients: list[str]
    models: list[PackagedModel]
    vectors: list[PackagedVector]
    files: list[FileSize]
    bundle_bytes: int
    runtime_bytes: int
    notes: list[str]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)
