"""Measure several files: load each in a process of its own, time them in turns, trace them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.latency import Latency, summarize_latency, time_in_turns, time_ratios
from loopedge.profiler.process import MeasuredProcess
from loopedge.profiler.trace import (
    OperatorTime,
    nodes_by_provider,
    operator_times,
    read_trace,
)

__all__ = ["Measured", "Plan", "Subject", "measure"]

WARM_UP_RUNS = 3
TRACED_RUNS = (8, 50)
TRACED_SECONDS = 0.2
MIN_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to measure, the ``.npz`` that it runs on, and its memory profile."""

    model: Path
    inputs: Path
    memory: str = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How all files are measured; without ``runs`` each gets as many as fit into ``seconds``."""

    threads: int
    provider: str
    runs: int | None
    seconds: float

    def start(self, subject: Subject, trace: Path | None = None) -> MeasuredProcess:
        """Load a model in a fresh process."""
        return MeasuredProcess(
            subject.model,
            subject.inputs,
            threads=self.threads,
            provider=self.provider,
            memory=subject.memory,
            trace=trace,
        )

    def timed_runs(self, warm_ms: Sequence[float]) -> int:
        """Return the number of timed runs of a model whose warm-up took so long."""
        fitting = round(self.seconds * 1000 / max(min(warm_ms), 1e-3))
        return self.runs or max(MIN_RUNS, fitting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one file; memory as growth in bytes, by the fields of `Memory`."""

    provider: str
    load_seconds: float
    loaded_memory: dict[str, int]
    memory: dict[str, int]
    latency_ms: Latency
    time_ratio: float
    nodes: dict[str, int]
    ops: list[OperatorTime]


def measure(subjects: Sequence[Subject], plan: Plan) -> list[Measured]:
    """Measure models.

    Args:
        subjects: The models.
        plan: How.

    Returns:
        One result per model, in their order.

    Raises:
        InputError: A model cannot be loaded.
        ProviderError: Another provider than asked for runs a model.
        LoopedgeError: A process died.
    """
    with contextlib.ExitStack() as stack:
        processes, memory, counts = [], [], []
        for subject in subjects:
            process = stack.enter_context(plan.start(subject))
            counts.append(plan.timed_runs(process.run(WARM_UP_RUNS)))
            memory.append(process.memory())
            processes.append(process)
        latencies = time_in_turns([process.run for process in processes], counts)
    ratios = time_ratios(latencies)
    results = []
    for i, subject in enumerate(subjects):
        loaded = processes[i].loaded
        events, load_seconds = _trace(subject, plan)
        results.append(
            Measured(
                provider=loaded["provider"],
                load_seconds=min(loaded["load_seconds"], load_seconds),
                loaded_memory=loaded["memory"],
                memory=memory[i],
                latency_ms=summarize_latency(latencies[i]),
                time_ratio=ratios[i],
                nodes=nodes_by_provider(events),
                ops=operator_times(events, skip_runs=WARM_UP_RUNS),
            )
        )
    return results


def _trace(subject: Subject, plan: Plan) -> tuple[list[dict[str, Any]], float]:
    """Trace a few runs in a process of their own: tracing slows small operators down.

    Returns:
        The events of the trace, and the seconds that loading took this time.
    """
    with plan.start(subject, trace=subject.inputs.with_suffix(".trace")) as process:
        fastest_ms = min(process.run(WARM_UP_RUNS))
        least, most = TRACED_RUNS
        process.run(min(most, max(least, round(TRACED_SECONDS * 1000 / fastest_ms))))
        return read_trace(process.end_trace()), process.loaded["load_seconds"]
