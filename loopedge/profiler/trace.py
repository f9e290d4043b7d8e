"""Read ONNX Runtime's trace: the time of each operator, a Loop without what runs inside it."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

__all__ = ["OperatorTime", "nodes_by_provider", "operator_times", "read_trace"]

KERNEL = "_kernel_time"
RUN = "model_run"
MICROSECONDS_PER_MS = 1000.0


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


def read_trace(path: Path) -> list[dict[str, Any]]:
    """Read the events of a trace file."""
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return events


def operator_times(
    events: Iterable[Mapping[str, Any]], *, skip_runs: int = 0
) -> list[OperatorTime]:
    """Sum the own time of each operator over the runs of a trace.

    A kernel that contains others (Loop, Scan, If) counts only what is left of it when they and the
    writing of their events are subtracted.

    Only the fastest quarter of the runs counts: a single preemption of the process would otherwise
    be charged to whatever operator it hit.

    Args:
        events: Of the trace, durations in microseconds.
        skip_runs: Runs at the start that were a warm-up.

    Returns:
        Means per inference, largest time first.
    """
    listed = list(events)
    runs = sorted(
        (int(event["ts"]), int(event["ts"]) + int(event["dur"]))
        for event in listed
        if event.get("name") == RUN
    )[skip_runs:]
    runs = sorted(runs, key=lambda run: run[1] - run[0])[: -(-len(runs) // 4)]
    if not runs:
        return []
    counts: dict[str, int] = defaultdict(int)
    own_us: dict[str, float] = defaultdict(float)
    for op, own in _own_times(listed, runs):
        counts[op] += 1
        own_us[op] += own
    total = sum(own_us.values()) or 1.0
    times = [
        OperatorTime(
            op=op,
            count=counts[op] / len(runs),
            ms=microseconds / len(runs) / MICROSECONDS_PER_MS,
            share=microseconds / total,
        )
        for op, microseconds in own_us.items()
    ]
    return sorted(times, key=lambda item: (-item.ms, item.op))


def nodes_by_provider(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the nodes that each execution provider ran, in a Loop once: what fell back is there."""
    nodes = {
        (str(event["args"].get("provider")), str(event["name"]), event["args"].get("node_index"))
        for event in events
        if _is_kernel(event)
    }
    return dict(sorted(Counter(provider for provider, *_ in nodes).items()))


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return str(event.get("name", "")).endswith(KERNEL) and "op_name" in event.get("args", {})


def _own_times(
    events: list[Mapping[str, Any]], runs: list[tuple[int, int]]
) -> Iterable[tuple[str, float]]:
    """Yield the operator and its own microseconds for each kernel within the runs."""
    kernels = [
        (int(event["ts"]), int(event["dur"]), str(event["args"]["op_name"]), event.get("tid"))
        for event in events
        if _is_kernel(event)
    ]
    by_thread: dict[Any, list[tuple[int, int, str]]] = defaultdict(list)
    for start, duration, op, thread in kernels:
        if any(first <= start <= last for first, last in runs):
            by_thread[thread].append((start, duration, op))
    for thread_kernels in by_thread.values():
        # Outer kernels first: they start earlier, or at the same time and last longer.
        thread_kernels.sort(key=lambda item: (item[0], -item[1]))
        open_kernels: list[_Kernel] = []
        for start, duration, op in thread_kernels:
            while open_kernels and open_kernels[-1].end <= start:
                done = open_kernels.pop()
                yield done.op, done.own_us()
            if open_kernels:
                open_kernels[-1].nested.append((start, start + duration))
            open_kernels.append(_Kernel(op, start, start + duration))
        while open_kernels:
            done = open_kernels.pop()
            yield done.op, done.own_us()


@dataclass(slots=True)
class _Kernel:
    """A kernel of a trace and the spans of those directly inside it, in microseconds."""

    op: str
    start: int
    end: int
    nested: list[tuple[int, int]] = field(default_factory=list)

    def own_us(self) -> float:
        """Return the duration without nested kernels and without what tracing each of them took.

        Writing an event takes about 3 us. Between the nodes of a main graph nobody is charged for
        it; between those of a body it would be charged to the Loop, and dwarf the Loop's own work.
        """
        own: float = self.end - self.start - sum(end - start for start, end in self.nested)
        gaps = [after[0] - before[1] for before, after in pairwise(self.nested)]
        if gaps:
            usual = 2 * median(gaps)  # longer ones are those between two iterations
            own -= len(self.nested) * mean(gap for gap in gaps if gap <= usual)
        return max(own, 0.0)
