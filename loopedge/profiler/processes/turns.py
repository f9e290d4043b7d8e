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
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.result import SoakPoint, Spread
from loopedge.runtime.latency import (
    MAX_ROUNDS,
    Latency,
    round_quartiles,
    summarize_latency,
    time_in_turns,
)

__all__ = ["MEMORY_FIGURES", "WARM_UP_RUNS", "Measurement", "Schedule", "measure"]

WARM_UP_RUNS = 3
PROMPT_RUNS = 3
"""Of a whole prompt in each process; the first pays for its memory."""
MIN_RUNS = 20
MOST_LOADED = 8
"""Processes that hold a model at the same time."""
FREE_MEMORY = 0.6
"""Share of the free memory that all loaded models may take."""
SOAK_ROUNDS_PER_SECOND = 0.5

MEMORY_FIGURES = ("rss_bytes", "anon_bytes", "mapped_bytes", "uss_bytes")
"""Fields of `Memory` whose value after loading is kept; the peak is read at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
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
class Measurement:
    """What was measured of one model; memory as growth in bytes, medians over the processes.

    ``spread`` holds the range over the processes by the names of `Run`; ``together`` says whether every
    ratio was taken in turns with the reference. ``prompt_ms`` is the time of a whole prompt, of a model that decodes.
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
    prompt_ms: float | None = None


@dataclass(slots=True)
class _Collected:
    """What the processes of one model have answered so far."""

    loaded: list[dict[str, Any]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    rounds: list[list[list[float]]] = field(default_factory=list)
    """Latencies in ms by process and turn."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """Pass and group of each process: whose turns were taken together."""
    points: list[SoakPoint] = field(default_factory=list)
    prompts: list[float] = field(default_factory=list)
    """Fastest latency of a whole prompt in ms, by process, of a model that decodes."""
    outputs: Path | None = None
    error: LoopedgeError | None = None


def measure(
    setups: Sequence[ProcessSetup],
    schedule: Schedule,
    report_progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement | LoopedgeError]:
    """Measure models.

    Every pass starts a fresh process for each model, in another order, and takes their times in turns.
    Where the models do not fit into memory together, groups of them are measured that each hold the
    first model, to which times are compared; where not even two fit, one after the other.

    Args:
        setups: The models.
        schedule: How.
        report_progress: Is called with what is measured next.

    Returns:
        What was measured of each, in their order; or why it could not be measured to the end.

    Raises:
        ProviderError: Another provider than asked for runs a model.
    """
    groups = _groups(setups)
    collected = [_Collected() for _ in setups]
    for number in range(schedule.processes):
        for place, group in enumerate(groups):
            report_progress(f"process {number + 1} of {schedule.processes}")
            _measure_group(setups, group, schedule, collected, (number, place))
    finished = [one for one in collected if one.error is None]
    return [one.error or _measurement(one, finished[0]) for one in collected]


def _groups(setups: Sequence[ProcessSetup]) -> list[list[int]]:
    """Return which setups are loaded at the same time; the first one stands in every group."""
    free = FREE_MEMORY * free_bytes()
    everybody = list(range(len(setups)))
    sizes = [setup.expected_bytes for setup in setups]
    if len(setups) <= MOST_LOADED and sum(sizes) <= free:
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
    setups: Sequence[ProcessSetup],
    group: list[int],
    schedule: Schedule,
    collected: list[_Collected],
    place: tuple[int, int],
) -> None:
    """Start a process for each setup of a group, and take their times in turns."""
    shift = place[0] % len(group)
    with contextlib.ExitStack() as stack:
        turns: list[_Turns] = []
        counts = []
        for i in [*group[shift:], *group[:shift]]:
            one = collected[i]
            if one.error is not None:
                continue
            try:
                process = stack.enter_context(MeasuredProcess(setups[i]))
                counts.append(schedule.timed_runs(process.run(WARM_UP_RUNS)))
            except ProviderError:
                raise
            except LoopedgeError as error:
                one.error = error
                continue
            target = None if schedule.outputs is None else schedule.outputs / f"outputs.{i}.npz"
            turns.append(_Turns(process, one, place, target))
        rounds = time_in_turns(turns, counts, most_rounds=schedule.most_rounds) if turns else []
        for turn, timed in zip(turns, rounds, strict=True):
            turn.finish(timed)
            turn.save_outputs()
            turn.time_prompts()  # fills the cache, which the outputs before it depend on


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
        """Keep the figures of this process."""
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

    def time_prompts(self) -> None:
        """Time whole prompts, of a model that decodes; the other figures of this process are taken, and stand without."""
        if self.process.setup.cache is None or self.collected.error is not None:
            return
        with contextlib.suppress(LoopedgeError):
            self.collected.prompts.append(min(self.process.prompts(PROMPT_RUNS)))

    def save_outputs(self) -> None:
        """Keep the outputs once; the figures of this process are taken, and stand without them."""
        done = self.collected.outputs is not None or self.collected.error is not None
        if self.target is not None and not done:
            with contextlib.suppress(LoopedgeError):
                self.collected.outputs = self.process.save_outputs(self.target)


def _measurement(one: _Collected, reference: _Collected) -> Measurement:
    loads = [float(answer["load_seconds"]) for answer in one.loaded]
    memory = {
        name: [int(answer["memory"].get(name, 0)) for answer in one.loaded]
        for name in MEMORY_FIGURES
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
    return Measurement(
        provider=one.loaded[0]["provider"],
        processes=len(one.loaded),
        load_seconds=median(loads),
        baseline_bytes=round(median(answer["baseline"]["rss_bytes"] for answer in one.loaded)),
        loaded_memory={name: round(median(values)) for name, values in memory.items()},
        rss_peak_bytes=round(median(one.peaks)),
        latency_ms=summarize_latency([turn for rounds in one.rounds for turn in rounds]),
        time_ratio=median(ratios),
        spread={name: Spread(low=min(v), high=max(v)) for name, v in figures.items()},
        points=one.points,
        together=together,
        outputs=one.outputs,
        prompt_ms=median(one.prompts) if one.prompts else None,
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
