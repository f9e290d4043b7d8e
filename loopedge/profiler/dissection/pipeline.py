"""Take a measured model apart: nodes, operators, iterations, work, memory by source."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from loopedge.artifact.artifact import Artifact
from loopedge.errors import LoopedgeError
from loopedge.graph.decoding.cache.slots import PRESENT
from loopedge.profiler.dissection.iterations import iteration_times
from loopedge.profiler.dissection.memory_sources import memory_sources, with_peak
from loopedge.profiler.dissection.roofline import compare_with_limits
from loopedge.profiler.dissection.trace import (
    nodes_by_provider,
    operator_times,
    read_trace,
)
from loopedge.profiler.dissection.work import Work, count_work
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.processes.turns import WARM_UP_RUNS, Measurement
from loopedge.profiler.result import (
    IterationTime,
    MachineLimits,
    MemorySources,
    OperatorTime,
    Roofline,
)
from loopedge.runtime.providers import CPU_PROVIDER, CUDA_PROVIDER

__all__ = ["Dissection", "dissect"]

TRACED_RUNS = (8, 50)
TRACED_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissection:
    """What a model consists of; what could not be had is None or empty, and ``notes`` say why.

    ``sources`` are those of the peak of loading and of that of running.
    """

    nodes: dict[str, int] = field(default_factory=dict)
    ops: list[OperatorTime] = field(default_factory=list)
    iterations: list[IterationTime] = field(default_factory=list)
    work: Work | None = None
    sources: tuple[MemorySources, MemorySources] | None = None
    notes: list[str] = field(default_factory=list)

    def peak_sources(self, rss_peak_bytes: int) -> tuple[MemorySources, MemorySources] | None:
        """Return the sources of the higher peak, as the measured processes found it, and of running."""
        if self.sources is None:
            return None
        loading, running = self.sources
        if running.peak_bytes >= loading.peak_bytes:
            running = with_peak(running, rss_peak_bytes)
            return running, running
        return with_peak(loading, rss_peak_bytes), running

    def roofline(
        self, limits: Sequence[MachineLimits], measured: Measurement, threads: int
    ) -> Roofline | None:
        """Compare the fastest inference with the limits of as many threads; None where none are known.

        The limits are fastest runs too: a busy machine slows both alike.
        """
        for limit in limits:
            if self.work is not None and limit.threads == threads:
                return compare_with_limits(self.work, limit, measured.latency_ms.min)
        return None


def dissect(setup: ProcessSetup, artifact: Artifact | None) -> Dissection:
    """Trace a few runs in a process of their own, and take the memory apart in others.

    Tracing slows small operators down, so that nothing else is measured there.

    Args:
        setup: The model. On another provider than the CPU neither work nor sources are known.
        artifact: Its file, opened; of a model that PyTorch runs there is none, and nothing is known.

    Raises:
        LoopedgeError: The process that is traced died.
    """
    if artifact is None:
        return Dissection()
    with MeasuredProcess(setup, trace=setup.inputs.with_suffix(".trace")) as process:
        fastest_ms = min(process.run(WARM_UP_RUNS))
        least, most = TRACED_RUNS
        process.run(min(most, max(least, round(TRACED_SECONDS * 1000 / fastest_ms))))
        events = read_trace(process.end_trace())
    work, sources, notes = None, None, []
    # Of what another provider runs as one node, the trace does not say where an iteration ends.
    named = setup.provider in (CPU_PROVIDER, CUDA_PROVIDER)
    if setup.provider == CPU_PROVIDER:
        graph = artifact.graph
        work = count_work(events, graph, skip_runs=WARM_UP_RUNS)
        if work.uncounted:
            notes.append(f"the roofline leaves out {', '.join(work.uncounted)}")
        try:
            outputs = [value.name or "" for value in graph.graph.outputs]
            if setup.cache is not None:  # the cache is not made, it is written into
                outputs = [name for name in outputs if not name.startswith(f"{PRESENT}.")]
            sources = memory_sources(setup, events, artifact.files, outputs=outputs)
        except LoopedgeError as error:
            notes.append(f"no memory by source: {error.message}")
    return Dissection(
        nodes=nodes_by_provider(events),
        ops=operator_times(events, skip_runs=WARM_UP_RUNS),
        iterations=iteration_times(events, skip_runs=WARM_UP_RUNS) if named else [],
        work=work,
        sources=sources,
        notes=notes,
    )
