"""Operator times of each iteration of the loops, from ONNX Runtime's trace."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from loopedge.graph.core.names import (
    core_in_name,
    in_last_name,
    is_core,
    iteration_in_name,
)
from loopedge.graph.operators import Fact, having
from loopedge.profiler.dissection.trace import (
    MICROSECONDS_PER_MS,
    Event,
    Kernel,
    counted_runs,
    kernels_of,
)
from loopedge.profiler.result import IterationTime

__all__ = ["iteration_times"]

REPEATING = having(Fact.REPEAT)


def iteration_times(events: Iterable[Event], *, skip_runs: int = 0) -> list[IterationTime]:
    """Return the own time of every operator by iteration of the model's loops.

    The trace does not number iterations. The nodes of a body run in the same order each time, its first
    one always: when that returns, the next iteration has begun. What a nested Loop, Scan or If holds
    belongs to the iteration that it runs in. The Loop's own time is in no iteration. An iteration that
    stands behind the Loop (`loopedge.graph.positions.last_iteration`) is the last one.

    An unrolled graph of loopedge names its nodes by the iteration, ``core.<t>/``. Of several loops one after the other
    is numbered, as they run.

    Args:
        events: Of the trace.
        skip_runs: Runs at the start that were a warm-up.

    Returns:
        Means per inference over the runs that count, as for `operator_times`; empty where the graph
        shows no iterations.
    """
    listed = list(events)
    runs = counted_runs(listed, skip_runs=skip_runs)
    kernels = kernels_of(listed, runs)
    # Loops of an unrolled graph stand inside the core, and each belongs to one iteration.
    numbered = _numbered_by_names(kernels)
    loops = [] if numbered else _loops(kernels)
    if loops:
        numbered = _numbered_by_loops(loops)
        last = 1 + max((iteration for iteration, _ in numbered), default=-1)
        numbered += [(last, kernel) for kernel in _behind_the_loop(kernels)]
    own_us: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for iteration, kernel in numbered:
        own_us[iteration][kernel.op] += kernel.own_us()
    return [
        IterationTime(
            iteration=iteration,
            ms=sum(ops.values()) / len(runs) / MICROSECONDS_PER_MS,
            ops={
                op: microseconds / len(runs) / MICROSECONDS_PER_MS
                for op, microseconds in sorted(ops.items(), key=lambda item: (-item[1], item[0]))
            },
        )
        for iteration, ops in sorted(own_us.items())
    ]


def _loops(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """Return the executions of each of the model's loops: of the outer ones those of cores, else all."""
    outer: dict[tuple[str, object], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        if kernel.op in REPEATING and not _inside_loop(kernel):
            outer[kernel.node, kernel.args.get("node_index")].append(kernel)
    named = [loops for (node, _), loops in outer.items() if is_core(node)]
    return named or list(outer.values())


def _inside_loop(kernel: Kernel) -> bool:
    parent = kernel.parent
    while parent is not None:
        if parent.op in REPEATING:
            return True
        parent = parent.parent
    return False


def _numbered_by_loops(loops: Iterable[Iterable[Kernel]]) -> list[tuple[int, Kernel]]:
    numbered: list[tuple[int, Kernel]] = []
    for executions in loops:
        before = 1 + max((iteration for iteration, _ in numbered), default=-1)
        for loop in executions:
            iteration, first = before - 1, None
            for kernel in loop.nested:
                identity = (kernel.node, kernel.args.get("node_index"))
                first = first or identity
                iteration += identity == first
                numbered += [(iteration, inner) for inner in _with_nested(kernel)]
    return numbered


def _behind_the_loop(kernels: Iterable[Kernel]) -> Iterable[Kernel]:
    for kernel in kernels:
        if kernel.parent is None and in_last_name(kernel.node):
            yield from _with_nested(kernel)


def _with_nested(kernel: Kernel) -> Iterable[Kernel]:
    yield kernel
    for inner in kernel.nested:
        yield from _with_nested(inner)


def _numbered_by_names(kernels: Iterable[Kernel]) -> list[tuple[int, Kernel]]:
    cores: dict[str | None, list[tuple[int, Kernel]]] = defaultdict(list)
    for kernel in kernels:
        iteration = iteration_in_name(kernel.node)
        if iteration is not None:
            cores[core_in_name(kernel.node)].append((iteration, kernel))
    numbered: list[tuple[int, Kernel]] = []
    for own in cores.values():
        before = 1 + max((iteration for iteration, _ in numbered), default=-1)
        numbered += [(before + iteration, kernel) for iteration, kernel in own]
    return numbered
