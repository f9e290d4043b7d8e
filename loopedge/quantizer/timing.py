"""Time the quantized model against its source: eight bits are not faster everywhere."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.inputs import first_samples
from loopedge.runtime.latency import round_quartiles, time_in_turns
from loopedge.runtime.session import Session

__all__ = ["TimeRatio", "ratio_of", "session_runner", "steadiest", "time_against", "time_several"]

SECONDS = 0.1
"""For each of the two models."""

FEWEST, MOST = 9, 150
"""Runs of a model: three rounds at least, so that they can be seen to differ."""

TRIES = 3
"""Times that both are timed, where other programs disturb it."""

TRIES_TOGETHER = 2
"""The same for several models, which take as long for each try."""

STEADY = 1.25
"""Upper against lower quartile of the rounds' ratios: beyond this, no ratio is stated as a fact."""

BUSY = 1.5
"""Median run of a model against its fastest: beyond this, something else was running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRatio:
    """The time of one inference of a model, as a share of another's.

    ``median`` of the rounds, ``low`` and ``high`` their quartiles; ``busy`` is the larger of both models'
    median run against the fastest one.
    """

    median: float
    low: float
    high: float
    busy: float

    @property
    def steady(self) -> bool:
        """Whether the rounds agree and nothing else seems to have run meanwhile."""
        return self.high <= STEADY * self.low and self.busy <= BUSY


def time_against(
    source: Path,
    quantized: Path,
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int | None = None,
) -> TimeRatio:
    """Time one inference of the quantized model and of its source, in turns.

    Where other programs disturb it, it is done again, a few times; the steadiest one counts.

    Args:
        source: The float artifact.
        quantized: The artifact to judge.
        feeds: Inputs. The first sample alone is run, where the graph says which axis holds samples.
        threads: Threads of ONNX Runtime.
    """
    sessions = [Session(path, threads=threads) for path in (source, quantized)]
    one = first_samples(feeds, sessions[0].axes, 1)
    runs = [session_runner(session, one) for session in sessions]
    return steadiest(runs, [_count(run) for run in runs])


def time_several(
    source: Path,
    files: Sequence[Path],
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int | None = None,
) -> list[TimeRatio]:
    """Time several quantized models and their source, all in turns: a slow stretch of the machine hits them alike.

    Where other programs disturb it, it is done again, a few times; of each model the steadiest time counts.

    Args:
        source: The float artifact.
        files: The artifacts to judge.
        feeds: Inputs, as in `time_against`.
        threads: Threads of ONNX Runtime.
    """
    sessions = [Session(path, threads=threads) for path in (source, *files)]
    one = first_samples(feeds, sessions[0].axes, 1)
    runs = [session_runner(session, one) for session in sessions]
    counts = [_count(run) for run in runs]
    tries: list[list[TimeRatio]] = []
    while len(tries) < TRIES_TOGETHER and not (tries and all(ratio.steady for ratio in tries[-1])):
        rounds = time_in_turns(runs, counts)
        tries.append([ratio_of(rounds[0], own) for own in rounds[1:]])
    return [min(own, key=_unsteadiness) for own in zip(*tries, strict=True)]


def _count(run: Callable[[int], list[float]]) -> int:
    """Return how often a model is run; it runs twice before."""
    ms = max(run(2)[1], 1e-3)
    return int(np.clip(1000 * SECONDS / ms, FEWEST, MOST))


def _unsteadiness(ratio: TimeRatio) -> tuple[bool, float, float]:
    return not ratio.steady, ratio.high / ratio.low, ratio.busy


def steadiest(runs: Sequence[Callable[[int], list[float]]], counts: Sequence[int]) -> TimeRatio:
    """Time two models in turns until the rounds agree, a few times at most; return the steadiest ratio."""
    tries: list[TimeRatio] = []
    while len(tries) < TRIES and not (tries and tries[-1].steady):
        tries.append(ratio_of(*time_in_turns(runs, counts)))
    return min(tries, key=_unsteadiness)


def ratio_of(source: Sequence[list[float]], quantized: Sequence[list[float]]) -> TimeRatio:
    """Compare two models by the latencies of their rounds, in ms.

    As `loopedge.runtime.latency.time_ratios`: within a round, without the runs that were interrupted.
    """
    ratios = round_quartiles(quantized) / round_quartiles(source)
    low, median, high = (float(value) for value in np.percentile(ratios, (25, 50, 75)))
    return TimeRatio(median=median, low=low, high=high, busy=max(_busy(source), _busy(quantized)))


def _busy(rounds: Sequence[list[float]]) -> float:
    runs = np.concatenate([np.asarray(one) for one in rounds])
    return float(np.median(runs) / max(runs.min(), 1e-9))


def session_runner(
    session: Session, feeds: Mapping[str, npt.NDArray[Any]]
) -> Callable[[int], list[float]]:
    """Return what runs a session so many times and gives the latencies in ms."""

    def run(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            session.run(feeds)
            taken.append(1000 * (time.perf_counter() - started))
        return taken

    return run
