"""Measure several models: each in several fresh processes, their times taken in turns."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loopedge.errors import LoopedgeError, ProviderError
from loopedge.profiler.machine import free_bytes
from loopedge.profiler.processes.process import MeasuredProcess
from loopedge.profiler.result import SoakPoint, Spread
from loopedge.runtime.latency import (
    MAX_ROUNDS,
    Latency,
    round_quartiles,
    summarize_latency,
    time_in_turns,
)
from loopedge.runtime.session import PROVIDERS

__all__ = ["MEMORY_FIGURES", "WARM_UP_RUNS", "Measured", "Plan", "Subject", "measure"]

WARM_UP_RUNS = 3
MIN_RUNS = 20
MOST_LOADED = 8
"""Processes that hold a model at the same time."""
FREE_MEMORY = 0.6
"""Share of the free memory that all loaded models may take."""
RUNTIME_BYTES = {"onnxruntime": 80 * 2**20, "torch": 400 * 2**20}
CUDA_BYTES = 1536 * 2**20
"""What the libraries and the context of CUDA add to it on the host, by a guess."""
COPIES = 2.5
"""Memory of a model at most, in bytes of its file: as stored, packed, and some activations."""
SOAK_ROUNDS_PER_SECOND = 0.5

MEMORY_FIGURES = ("rss_bytes", "anon_bytes", "mapped_bytes", "uss_bytes")
"""Fields of `Memory` that are told as they are after loading; the peak is told at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a measured process is told: a model, its inputs, and how it runs."""

    model: Path
    inputs: Path
    file_bytes: int
    provider: str | None
    threads: int
    runtime: str = "onnxruntime"
    memory: str = "balanced"
    optimize: bool = True
    loops: int | None = None
    options: tuple[str, ...] = ()
    cuda_graphs: bool = False
    dimensions: tuple[tuple[str, int], ...] = ()

    def start(
        self,
        *,
        trace: Path | None = None,
        memory: str | None = None,
        before_load: Callable[[int], None] | None = None,
        optimized: Path | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> MeasuredProcess:
        """Load the model in a fresh process, under another memory profile where one is named."""
        return MeasuredProcess(
            self.model,
            self.inputs,
            threads=self.threads,
            provider=self.provider,
            runtime=self.runtime,
            memory=memory or self.memory,
            optimize=self.optimize,
            loops=self.loops,
            options=self.options,
            cuda_graphs=self.cuda_graphs,
            dimensions=dict(self.dimensions),
            before_load=before_load,
            trace=trace,
            optimized=optimized,
            on_start=on_start,
        )

    @property
    def expected_bytes(self) -> float:
        """Memory of the loaded process, by a generous guess."""
        cuda = CUDA_BYTES if self.provider == PROVIDERS["cuda"] else 0
        return RUNTIME_BYTES[self.runtime] + cuda + COPIES * self.file_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How all models are measured; without ``runs`` each gets as many as fit into ``seconds``."""

    processes: int
    runs: int | None
    seconds: float
    outputs: Path | None = None
    """Folder for the outputs of each model."""

    def timed_runs(self, warm_ms: Sequence[float]) -> int:
        """Return the runs of one process of a model whose warm-up took so long."""
        fitting = round(self.seconds * 1000 / max(min(warm_ms), 1e-3))
        return -(-(self.runs or max(MIN_RUNS, fitting)) // self.processes)

    @property
    def most_rounds(self) -> int:
        """Turns of each model in one process."""
        return max(MAX_ROUNDS, round(SOAK_ROUNDS_PER_SECOND * self.seconds / self.processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one model; memory as growth in bytes, medians over the processes.

    ``spread`` holds the range over the processes by the names of `Run`; ``together`` says whether every
    ratio was taken in turns with the reference.
    """

    provider: str
    processes: int
    load_seconds: float
    baseline_bytes: int
    loaded_memory: dict[str, int]
    rss_peak_bytes: int
    latency_ms: Latency
    time_ratio: float
    spread: dict[str, Spread]
    points: list[SoakPoint]
    together: bool
    outputs: Path | None


@dataclass(slots=True)
class _Collected:
    """What the processes of one subject have told so far."""

    loaded: list[dict[str, Any]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    rounds: list[list[list[float]]] = field(default_factory=list)
    """Latencies in ms by process and turn."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """Pass and group of each process: whose turns were taken together."""
    points: list[SoakPoint] = field(default_factory=list)
    outputs: Path | None = None
    error: LoopedgeError | None = None


def measure(
    subjects: Sequence[Subject],
    plan: Plan,
    told: Callable[[str], None] = lambda text: None,
) -> list[Measured | LoopedgeError]:
    """Measure models.

    Every pass starts a fresh process for each model, in another order, and takes their times in turns.
    Where the models do not fit into memory together, groups of them are measured that each hold the
    first model, to which times are compared; where not even two fit, one after the other.

    Args:
        subjects: The models.
        plan: How.
        told: Is called with what is measured next.

    Returns:
        What was measured of each, in their order; or why it could not be measured to the end.

    Raises:
        ProviderError: Another provider than asked for runs a model.
    """
    groups = _groups(subjects)
    collected = [_Collected() for _ in subjects]
    for number in range(plan.processes):
        for place, group in enumerate(groups):
            told(f"process {number + 1} of {plan.processes}")
            _measure_group(subjects, group, plan, collected, (number, place))
    finished = [one for one in collected if one.error is None]
    return [one.error or _measured(one, finished[0]) for one in collected]


def _groups(subjects: Sequence[Subject]) -> list[list[int]]:
    """Return which subjects are loaded at the same time; the first one stands in every group."""
    free = FREE_MEMORY * free_bytes()
    everybody = list(range(len(subjects)))
    sizes = [subject.expected_bytes for subject in subjects]
    if len(subjects) <= MOST_LOADED and sum(sizes) <= free:
        return [everybody]
    groups: list[list[int]] = []
    for i in everybody[1:]:
        last = groups[-1] if groups else None
        room = free - sum(sizes[j] for j in last) if last else 0.0
        if last and len(last) < MOST_LOADED and sizes[i] <= room:
            last.append(i)
        elif sizes[0] + sizes[i] <= free:
            groups.append([0, i])
        else:
            return [[i] for i in everybody]
    return groups or [everybody]


def _measure_group(
    subjects: Sequence[Subject],
    group: list[int],
    plan: Plan,
    collected: list[_Collected],
    place: tuple[int, int],
) -> None:
    """Start a process for each subject of a group, and take their times in turns."""
    shift = place[0] % len(group)
    with contextlib.ExitStack() as stack:
        turns: list[_Turns] = []
        counts = []
        for i in [*group[shift:], *group[:shift]]:
            one = collected[i]
            if one.error is not None:
                continue
            try:
                process = stack.enter_context(subjects[i].start())
                counts.append(plan.timed_runs(process.run(WARM_UP_RUNS)))
            except ProviderError:
                raise
            except LoopedgeError as error:
                one.error = error
                continue
            target = None if plan.outputs is None else plan.outputs / f"outputs.{i}.npz"
            turns.append(_Turns(process, one, place, target))
        rounds = time_in_turns(turns, counts, most_rounds=plan.most_rounds) if turns else []
        for turn, timed in zip(turns, rounds, strict=True):
            turn.finish(timed)
            turn.save_outputs()


class _Turns:
    """The turns of one process; once it died, the rest of its turns are empty."""

    def __init__(
        self,
        process: MeasuredProcess,
        collected: _Collected,
        place: tuple[int, int],
        target: Path | None,
    ) -> None:
        self.process, self.collected, self.place, self.target = process, collected, place, target
        self.started = time.monotonic()

    def __call__(self, count: int) -> list[float]:
        if self.collected.error is not None:
            return []
        try:
            latencies = self.process.run(count)
            memory = self.process.memory()
        except LoopedgeError as error:
            self.collected.error = error
            return []
        self.collected.points.append(
            SoakPoint(
                process=len(self.collected.loaded),
                second=time.monotonic() - self.started,
                runs=count,
                rss_bytes=memory["rss_bytes"],
                anon_bytes=memory["anon_bytes"],
                p50_ms=median(latencies),
            )
        )
        return latencies

    def finish(self, rounds: list[list[float]]) -> None:
        """Keep what this process told."""
        if self.collected.error is not None:
            return
        try:
            memory = self.process.memory()
        except LoopedgeError as error:
            self.collected.error = error
            return
        self.collected.loaded.append(self.process.loaded)
        self.collected.peaks.append(memory["peak_bytes"])
        self.collected.rounds.append(rounds)
        self.collected.places.append(self.place)

    def save_outputs(self) -> None:
        """Keep the outputs once; the figures of this process are taken, and stand without them."""
        done = self.collected.outputs is not None or self.collected.error is not None
        if self.target is not None and not done:
            with contextlib.suppress(LoopedgeError):
                self.collected.outputs = self.process.save_outputs(self.target)


def _measured(one: _Collected, reference: _Collected) -> Measured:
    loads = [float(told["load_seconds"]) for told in one.loaded]
    memory = {
        name: [int(told["memory"].get(name, 0)) for told in one.loaded] for name in MEMORY_FIGURES
    }
    ratios, together = _time_ratios(one, reference)
    medians = [median(ms for turn in rounds for ms in turn) for rounds in one.rounds]
    figures: dict[str, Sequence[float]] = {
        "load_seconds": loads,
        "rss_load_bytes": memory["rss_bytes"],
        "anon_bytes": memory["anon_bytes"],
        "mapped_bytes": memory["mapped_bytes"],
        "uss_bytes": memory["uss_bytes"],
        "rss_peak_bytes": one.peaks,
        "latency_ms.p50": medians,
        "time_ratio": ratios,
    }
    return Measured(
        provider=one.loaded[0]["provider"],
        processes=len(one.loaded),
        load_seconds=median(loads),
        baseline_bytes=round(median(told["baseline"]["rss_bytes"] for told in one.loaded)),
        loaded_memory={name: round(median(values)) for name, values in memory.items()},
        rss_peak_bytes=round(median(one.peaks)),
        latency_ms=summarize_latency([turn for rounds in one.rounds for turn in rounds]),
        time_ratio=median(ratios),
        spread={name: Spread(low=min(v), high=max(v)) for name, v in figures.items()},
        points=one.points,
        together=together,
        outputs=one.outputs,
    )


def _time_ratios(one: _Collected, reference: _Collected) -> tuple[list[float], bool]:
    """Return the time against the reference, once per process; and whether all were taken in turns.

    As `loopedge.runtime.latency.time_ratios` within each process.
    """
    against = {
        place: round_quartiles(rounds)
        for place, rounds in zip(reference.places, reference.rounds, strict=True)
    }
    usual = np.median(np.concatenate(list(against.values())))
    ratios, together = [], True
    for place, rounds in zip(one.places, one.rounds, strict=True):
        quartiles = round_quartiles(rounds)
        if place in against:
            ratios.append(float(np.median(quartiles / against[place])))
        else:
            ratios.append(float(np.median(quartiles) / usual))
            together = False
    return ratios, together
