"""What a measured process runs: a model, its inputs, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.runtime.providers import CPU_PROVIDER, CUDA_PROVIDER

__all__ = ["CacheSize", "ProcessSetup"]

RUNTIME_BYTES = {"onnxruntime": 80 * 2**20, "torch": 400 * 2**20}
CUDA_BYTES = 1536 * 2**20
"""What the libraries and the context of CUDA add to it on the host, by a guess."""
COPIES = 2.5
"""Memory of a model at most, in bytes of its file: as stored, packed, and some activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """The cache of a model that decodes.

    Args:
        rows: Iterations that keep their own keys and values, by port.
        batch: Texts side by side.
        capacity: Positions that there is room for.
        nbytes: Of all keys and values.
    """

    rows: tuple[tuple[str, int], ...]
    batch: int
    capacity: int
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        """Return what the process makes buffers of, as plain values."""
        return {"rows": dict(self.rows), "batch": self.batch, "capacity": self.capacity}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSetup:
    """A model, its inputs, and how a measured process runs it.

    Args:
        model: The ``.onnx`` or ``.ort`` file, or a ``model.pt`` for PyTorch.
        inputs: ``.npz`` with one array per input.
        file_bytes: Of the model and its data; says how much memory the process may take.
        threads: Threads inside an operator; the process is pinned to as many cores.
        provider: Execution provider; None for PyTorch, which chooses nothing.
        provider_options: Of the provider, by its own names.
        runtime: ``onnxruntime`` or ``torch``.
        memory: Memory profile, already checked against the file: the process reads no metadata.
        optimize: Let ONNX Runtime's optimizers look at the graph.
        loops: Iterations that PyTorch runs; ONNX Runtime has them among its inputs.
        options: Inputs that are none of the model's own, but choose how it runs.
        cuda_graphs: Capture the run as a CUDA graph and replay it.
        dimensions: Sizes of free axes by name, fixed when the model is loaded.
        cache: Of a model that decodes: how large its cache is.
    """

    model: Path
    inputs: Path
    file_bytes: int = 0
    threads: int = 1
    provider: str | None = CPU_PROVIDER
    provider_options: tuple[tuple[str, str], ...] = ()
    runtime: str = "onnxruntime"
    memory: str = "balanced"
    optimize: bool = True
    loops: int | None = None
    options: tuple[str, ...] = ()
    cuda_graphs: bool = False
    dimensions: tuple[tuple[str, int], ...] = ()
    cache: CacheSize | None = None

    @property
    def expected_bytes(self) -> float:
        """Memory of the loaded process, by a generous guess."""
        cuda = CUDA_BYTES if self.provider == CUDA_PROVIDER else 0
        cache = 0 if self.cache is None else self.cache.nbytes
        return RUNTIME_BYTES[self.runtime] + cuda + COPIES * self.file_bytes + cache

    def to_json(self) -> dict[str, Any]:
        """Return what the process is asked for, as plain values."""
        return {
            "model": str(self.model),
            "inputs": str(self.inputs),
            "threads": self.threads,
            "provider": self.provider,
            "provider_options": dict(self.provider_options),
            "runtime": self.runtime,
            "memory": self.memory,
            "optimize": self.optimize,
            "loops": self.loops,
            "options": list(self.options),
            "cuda_graphs": self.cuda_graphs,
            "dimensions": dict(self.dimensions),
            "cache": None if self.cache is None else self.cache.to_json(),
        }
