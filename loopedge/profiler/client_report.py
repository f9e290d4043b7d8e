"""What the program ``bench`` of a bundle's client prints: a profile with holes; docs/profiling.md says who writes what."""

from dataclasses import dataclass, field
from typing import Any, Literal

from loopedge.profiler.result import Failure, GpuMemory, MachineLimits, Run, Spread
from loopedge.runtime.latency import Latency

__all__ = ["AnyRun", "ClientReport", "ClientRun"]

ClientName = Literal["web", "node", "c", "python"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """A model that a client ran, with the fields of `Run` that a client may know; None: it could not be measured.

    ``heap_bytes``: size of the WASM heap after the runs. ``output_error``: norm of the difference to the expected
    outputs of the first test vector, in parts of their norm.
    """

    name: str
    path: str
    runtime: str
    provider: str
    batch: int
    file_bytes: int
    latency_ms: Latency
    sequence: int | None = None
    loops: int | None = None
    form: str | None = None
    quantization: str | None = None
    memory: str | None = None
    threads: int | None = None
    processes: int = 1
    weight_bytes: int | None = None
    load_seconds: float | None = None
    baseline_bytes: int | None = None
    rss_load_bytes: int | None = None
    anon_bytes: int | None = None
    mapped_bytes: int | None = None
    uss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    heap_bytes: int | None = None
    output_error: float | None = None
    nodes: dict[str, int] | None = None
    spread: dict[str, Spread] = field(default_factory=dict)
    twin: None = None
    time_ratio: float | None = None
    compute: str = "float32"
    cuda_graph: bool = False
    gpu: GpuMemory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """All runs of one client on one device."""

    schema_version: int
    client: ClientName
    machine: dict[str, Any]
    runs: list[ClientRun]
    created: str | None = None
    limits: list[MachineLimits] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


AnyRun = Run | ClientRun
"""A run of ``loopedge profile``, or of a client."""
