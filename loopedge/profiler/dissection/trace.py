"""Read ONNX Runtime's trace: the time of each operator, a Loop without what runs inside it."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from loopedge.errors import LoopedgeError
from loopedge.profiler.result import OperatorTime

__all__ = [
    "KERNEL",
    "MICROSECONDS_PER_MS",
    "Event",
    "Kernel",
    "counted_runs",
    "kernels_of",
    "nodes_by_provider",
    "operator_times",
    "read_trace",
]

KERNEL = "_kernel_time"
RUN = "model_run"
MICROSECONDS_PER_MS = 1000.0
FUSED = re.compile(r"(\w+?)(?:ExecutionProvider)?_\d{6,}_\d+")
"""What ONNX Runtime calls a part of the graph that a provider runs as one node; each has a number of its own."""

Event = Mapping[str, Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Kernel:
    """One execution of a node, times in microseconds; ``nested`` are those directly inside it.

    ``args`` are ONNX Runtime's: shapes, memory, the node's index in its graph.
    """

    node: str
    op: str
    start: int
    end: int
    args: Mapping[str, Any]
    parent: "Kernel | None" = None
    nested: list["Kernel"] = field(default_factory=list)

    def own_us(self) -> float:
        """Return the duration without nested kernels and without what tracing each of them took.

        Writing an event takes about 3 us. Between the nodes of a main graph no node is charged for
        it; between those of a body it would be charged to the Loop, and dwarf the Loop's own work.
        """
        own: float = self.end - self.start - sum(one.end - one.start for one in self.nested)
        gaps = [after.start - before.end for before, after in pairwise(self.nested)]
        if gaps:
            usual = 2 * median(gaps)  # longer ones are those between two iterations
            own -= len(self.nested) * mean(gap for gap in gaps if gap <= usual)
        return max(own, 0.0)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """Read the events of a trace file.

    Raises:
        LoopedgeError: ONNX Runtime could not write it whole.
    """
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoopedgeError(
            f"ONNX Runtime did not write its trace whole: {path}",
            hint="free some space there, or name another folder by TMPDIR",
        ) from error
    return events


def counted_runs(events: Iterable[Event], *, skip_runs: int = 0) -> list[tuple[int, int]]:
    """Return first and last microsecond of the runs whose times count: the fastest quarter.

    A single preemption of the process would otherwise be charged to whatever operator it hit.

    Args:
        events: Of the trace.
        skip_runs: Runs at the start that were a warm-up.
    """
    runs = sorted(
        (int(event["ts"]), int(event["ts"]) + int(event["dur"]))
        for event in events
        if event.get("name") == RUN
    )[skip_runs:]
    return sorted(runs, key=lambda run: run[1] - run[0])[: -(-len(runs) // 4)]


def kernels_of(events: Iterable[Event], runs: Sequence[tuple[int, int]]) -> list[Kernel]:
    """Return the kernels within the runs by thread and start, each with those inside it."""
    by_thread: dict[Any, list[Kernel]] = defaultdict(list)
    for event in events:
        start = int(event.get("ts", 0))
        if _is_kernel(event) and any(first <= start <= last for first, last in runs):
            by_thread[event.get("tid")].append(
                Kernel(
                    node=str(event["name"]).removesuffix(KERNEL),
                    op=_operator(event),
                    start=start,
                    end=start + int(event["dur"]),
                    args=event["args"],
                )
            )
    found = []
    for kernels in by_thread.values():
        # Outer kernels first: they start earlier, or at the same time and last longer.
        kernels.sort(key=lambda kernel: (kernel.start, -kernel.end))
        open_kernels: list[Kernel] = []
        for kernel in kernels:
            while open_kernels and open_kernels[-1].end <= kernel.start:
                open_kernels.pop()
            if open_kernels:
                kernel.parent = open_kernels[-1]
                kernel.parent.nested.append(kernel)
            open_kernels.append(kernel)
        found += kernels
    return found


def operator_times(events: Iterable[Event], *, skip_runs: int = 0) -> list[OperatorTime]:
    """Sum the own time of each operator over the runs of a trace that count.

    A kernel that contains others (Loop, Scan, If) counts only what is left of it when they and the
    writing of their events are subtracted.

    Args:
        events: Of the trace, durations in microseconds.
        skip_runs: Runs at the start that were a warm-up.

    Returns:
        Means per inference, largest time first.
    """
    listed = list(events)
    runs = counted_runs(listed, skip_runs=skip_runs)
    counts: dict[str, int] = defaultdict(int)
    own_us: dict[str, float] = defaultdict(float)
    for kernel in kernels_of(listed, runs):
        counts[kernel.op] += 1
        own_us[kernel.op] += kernel.own_us()
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


def nodes_by_provider(events: Iterable[Event]) -> dict[str, int]:
    """Count the nodes that each execution provider ran, in a Loop once: what fell back is there."""
    nodes = {
        (str(event["args"].get("provider")), str(event["name"]), event["args"].get("node_index"))
        for event in events
        if _is_kernel(event)
    }
    return dict(sorted(Counter(provider for provider, *_ in nodes).items()))


def _operator(event: Event) -> str:
    """Return the operator of a node; of a part that a provider runs as one, whose it is: ``OpenVINO subgraph``."""
    name = str(event["args"]["op_name"])
    fused = FUSED.fullmatch(name)
    return f"{fused[1]} subgraph" if fused else name


def _is_kernel(event: Event) -> bool:
    return str(event.get("name", "")).endswith(KERNEL) and "op_name" in event.get("args", {})
