"""A model that is to be measured, and what is known of it before."""

from dataclasses import dataclass
from pathlib import Path

from loopedge.artifact.artifact import Artifact
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import Fidelity
from loopedge.profiler.subjects.weight_reads import WeightReads

__all__ = ["ProfiledModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledModel:
    """A model to measure, and what is known of it before.

    ``traits`` set it apart from its namesakes; ``artifact`` is its file, opened, unless it is a checkpoint; ``weight_reads``
    are known of a model that decodes, ``fidelity`` of a quantized one.
    """

    source: Path
    traits: tuple[str, ...]
    setup: ProcessSetup
    twin: str | None
    form: str | None
    quantization: str | None
    loops: int | None
    batch: int
    sequence: int | None
    weight_bytes: int
    notes: tuple[str, ...] = ()
    compute: str = "float32"
    artifact: Artifact | None = None
    weight_reads: WeightReads | None = None
    fidelity: Fidelity | None = None

    @property
    def name(self) -> str:
        """What the model is called among the others."""
        return self.source.name + (f" ({', '.join(self.traits)})" if self.traits else "")
