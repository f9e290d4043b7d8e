"""What a profile found: one `Run` per model, twin and configuration, plain values all the way down."""

from dataclasses import asdict, dataclass, field
from typing import Any

from loopedge.runtime.latency import Latency

__all__ = [
    "SCHEMA_VERSION",
    "AgainstCpu",
    "Decoding",
    "Failure",
    "GpuMemory",
    "IterationTime",
    "MachineLimits",
    "MemorySources",
    "OperatorTime",
    "ProfileResult",
    "Roofline",
    "Run",
    "Soak",
    "SoakPoint",
    "Spread",
]

SCHEMA_VERSION = 3
"""Of the JSON; docs/profile.schema.json is its schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest and largest value of a figure over the processes that measured it."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySources:
    """What a peak of a model's memory consists of, in bytes; docs/profiling.md says how each part is measured.

    ``moment``: ``load`` or ``run``, each of which has a peak. The parts add up to ``peak_bytes``;
    ``other_bytes`` is what none of them explains, and may be negative by what two of them count both.

    ``weights_mapped``: pages of the model's files; ``weights_copied``: initializers in memory as they
    are stored; ``packed``: their packed copies; ``activations``: the most that the arena held beyond the
    load; ``kv_cache``: outputs that carry a cache; ``graph``: nodes, kernels and plans; ``retained``:
    freed, and kept by malloc or the arena; ``transient``: there at the peak, and given back after it; ``runtime``:
    pages of libraries that the first session touched. ``peak_node`` is the node at which the
    activations are largest.
    """

    moment: str
    peak_bytes: int
    weights_mapped_bytes: int
    weights_copied_bytes: int
    packed_bytes: int
    activations_bytes: int
    kv_cache_bytes: int
    graph_bytes: int
    retained_bytes: int
    transient_bytes: int
    runtime_bytes: int
    other_bytes: int
    peak_node: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One kind of operator in one inference.

    ``count``: executions, in a Loop one per iteration; ``ms``: own time, without nested operators;
    ``share``: of the sum over all operators.
    """

    op: str
    count: float
    ms: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationTime:
    """Own time of the operators of one iteration of the loop, in ms; ``iteration`` counts from 0."""

    iteration: int
    ms: float
    ops: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLimits:
    """What this machine's own GEMM and copy reach in a process that is pinned as the models' are.

    ``gflops_per_second`` of a float32 product of ONNX Runtime, ``int8_gops_per_second`` of its u8 x s8
    product (None where it could not be run), ``gb_per_second`` read and written by a copy.
    """

    threads: int
    gflops_per_second: float
    int8_gops_per_second: float | None
    gb_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """How near an inference comes to the machine's limits.

    ``gflop``: floating-point or integer operations of its products; ``gb``: what its nodes read and
    write, weights once per use; ``compute_share``: the time of the products at the machine's own GEMM,
    of their kind each, against the time measured; ``copy_share``: the same of the bytes at the rate of a
    copy; ``bound``: ``compute`` or ``memory``, whichever share is larger; ``neither`` where both are
    below a half.
    """

    gflop: float
    gb: float
    gflops_per_second: float
    gb_per_second: float
    compute_share: float
    copy_share: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPoint:
    """One turn of a model: seconds since its process was loaded, memory after it, latency in it."""

    process: int
    second: float
    runs: int
    rss_bytes: int
    anon_bytes: int
    p50_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """Memory and latency over time.

    ``anon_bytes_per_1000_runs``: growth of anonymous memory past the warm-up; ``leaks``: whether it grew
    in most processes by more than it swings; ``drift``: latency of the last third against the first.
    """

    seconds: float
    runs: int
    anon_bytes_per_1000_runs: float
    leaks: bool
    drift: float
    points: list[SoakPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """Memory and nodes of a model on a GPU, in bytes; docs/profiling.md says how each is measured.

    ``process``: of the process by NVML beyond the CUDA context, at its peak; None where the driver
    does not tell. ``context``: of the context alone. ``weights``: as stored, once. ``activations``: the most
    that the arena held in use beyond the load. ``workspace``: what the process holds beyond these.
    ``arena``: all that ONNX Runtime's arena held. ``source``: ``process``, or ``device`` where the driver
    reports no figure per process. ``fell_back``: nodes that ran on the CPU and compute data;
    ``host_nodes``: shapes and the bookkeeping of a Loop, which belong there.
    """

    name: str
    process_bytes: int | None
    context_bytes: int | None
    weights_bytes: int
    workspace_bytes: int | None
    activations_bytes: int | None
    memcpy_nodes: int
    cuda_graph: bool
    fell_back: list[str]
    host_nodes: list[str] = field(default_factory=list)
    arena_bytes: int | None = None
    source: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What a model reads to decode one token behind a text of ``sequence`` positions.

    ``tokens_per_second`` of all rows by the median, ``prompt_tokens_per_second`` of a prompt of ``sequence`` positions that is
    computed at once; None where it could not be measured. ``weight_bytes`` are those of all products, each time that one runs, ``distinct_bytes`` those of them that are stored: where
    iterations share their weights, the later ones may find them in a cache of the processor. ``block_bytes`` are what one
    iteration reads; ``fits`` is the smallest of these caches that holds them (``L2``), None where none does.
    ``cache_bytes`` are the keys and values of the text.
    """

    tokens_per_second: float
    weight_bytes: int
    distinct_bytes: int
    block_bytes: int
    cache_bytes: int
    fits: str | None
    prompt_tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCosine:
    """The cosine of a core's state after each iteration to the float model's, over samples; None where none is defined."""

    core: str
    state: str
    mean: list[float | None]
    worst: list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far a quantized file is from its float model, as it says itself: it was measured when the file was written.

    ``measured_on``: ``validation``, ``data``, ``calibrating`` or ``generated`` samples. ``metric``, ``float_score`` and ``score``:
    the task's own, None where it is not known.
    """

    sqnr_db: float
    measured_on: str
    samples: int
    metric: str | None
    float_score: float | None
    score: float | None
    states: list[StateCosine]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstCpu:
    """A model on another execution provider held against the same file on the CPU; docs/profiling.md has the rule.

    ``compared_with``: ``float`` where the float model of the same work is profiled too, and outputs are held against its
    on the CPU, else ``cpu``, this file's own. ``max_rel_error``: to this file on the CPU, against its largest output.
    ``sqnr_db``: of the provider; ``cpu_sqnr_db``: of the CPU, None where it is what is compared with;
    ``bfloat16_db``: of the CPU where every float is rounded to bfloat16, None where the outputs agree without asking that;
    ``limit_db``: least that passes, None where the outputs agree. ``cpu_ms``: median time of the CPU,
    ``time_ratio``: of the provider against it, in turns.
    """

    compared_with: str
    max_rel_error: float
    sqnr_db: float
    cpu_sqnr_db: float | None
    bfloat16_db: float | None
    limit_db: float | None
    cpu_ms: float
    time_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One profiled model; docs/profiling.md says how each figure is measured.

    Memory is the growth over the same process with its runtime imported and nothing loaded; figures
    are medians over ``processes`` fresh processes, and ``spread`` holds their range by the name of the
    figure. ``memory_sources`` are those of the higher peak, ``running_sources`` those of the inferences
    after loading. ``time_ratio`` is the time of an inference against the first run of the profile, ``nodes``
    are those of the graph that ran, by execution provider, ``compute`` is the type of the products,
    ``cuda_graph`` whether it was asked to be replayed as a CUDA graph (`GpuMemory` holds whether it was);
    ``output_error`` is the difference of its outputs to those of the first run of the same work on the same
    inputs, in parts of their norm, None where there is none to compare with; ``assigned`` are the operators of the
    graph as each provider took them, empty where the CPU was asked for.
    """

    name: str
    path: str
    runtime: str
    form: str | None
    twin: str | None
    quantization: str | None
    loops: int | None
    provider: str
    memory: str
    threads: int
    batch: int
    sequence: int | None
    processes: int
    file_bytes: int
    weight_bytes: int
    load_seconds: float
    baseline_bytes: int
    rss_load_bytes: int
    anon_bytes: int
    mapped_bytes: int
    uss_bytes: int
    rss_peak_bytes: int
    latency_ms: Latency
    time_ratio: float
    spread: dict[str, Spread]
    nodes: dict[str, int]
    ops: list[OperatorTime]
    iterations: list[IterationTime] = field(default_factory=list)
    memory_sources: MemorySources | None = None
    running_sources: MemorySources | None = None
    roofline: Roofline | None = None
    soak: Soak | None = None
    gpu: GpuMemory | None = None
    compute: str = "float32"
    cuda_graph: bool = False
    output_error: float | None = None
    decoding: Decoding | None = None
    fidelity: Fidelity | None = None
    assigned: dict[str, dict[str, int]] = field(default_factory=dict)
    against_cpu: AgainstCpu | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A model that could not be measured to the end, and why; the others were."""

    name: str
    path: str
    twin: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileResult:
    """All runs of one profile, in the order of its arguments, their twins after them.

    ``client``: the client of a bundle whose report it is; None: ``loopedge profile`` measured it.
    """

    schema_version: int
    client: None
    created: str
    machine: dict[str, Any]
    limits: list[MachineLimits]
    runs: list[Run]
    failures: list[Failure]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        return asdict(self)
