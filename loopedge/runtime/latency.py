"""Time models in turns, and compare them in a way that a busy machine does not distort."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Latency", "round_quartiles", "summarize_latency", "time_in_turns", "time_ratios"]

MAX_ROUNDS = 15
RUNS_PER_ROUND = 3
"""At least: the first run after a turn finds the caches full of another model's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds of one inference, over ``runs`` runs."""

    p50: float
    p95: float
    p99: float
    mean: float
    min: float
    runs: int


def time_in_turns(
    models: Sequence[Callable[[int], list[float]]],
    counts: Sequence[int],
    *,
    most_rounds: int = MAX_ROUNDS,
) -> list[list[list[float]]]:
    """Time several models, several rounds, in each of which every model has its turn.

    Args:
        models: Run a model so many times and return the latencies, in ms.
        counts: Runs of each model, over all rounds.
        most_rounds: Rounds at most.

    Returns:
        The latencies of each model, by round.
    """
    rounds = min(most_rounds, max(1, min(counts) // RUNS_PER_ROUND))
    latencies: list[list[list[float]]] = [[] for _ in models]
    for i in range(rounds):
        for run, count, timed in zip(models, counts, latencies, strict=True):
            timed.append(run(count * (i + 1) // rounds - count * i // rounds))
    return latencies


def summarize_latency(rounds: Sequence[Sequence[float]]) -> Latency:
    """Return the quantiles over all rounds."""
    latencies_ms = np.concatenate([np.asarray(one) for one in rounds])
    p50, p95, p99 = (float(value) for value in np.percentile(latencies_ms, (50, 95, 99)))
    return Latency(
        p50=p50,
        p95=p95,
        p99=p99,
        mean=float(latencies_ms.mean()),
        min=float(latencies_ms.min()),
        runs=len(latencies_ms),
    )


def round_quartiles(rounds: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Return the lower quartile of each round: without the runs that other programs interrupted."""
    return np.array([np.percentile(one, 25) for one in rounds])


def time_ratios(latencies: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Return the time of each model against the first.

    A round's lower quartile leaves out the runs that other programs interrupted, the comparison
    within a round leaves out slow stretches of the machine, and the median over the rounds the
    ones where neither was enough. The ratio of two medians has none of this: where every second
    run is interrupted it is off by a factor.
    """
    quartiles = np.array([round_quartiles(rounds) for rounds in latencies])
    return [float(ratio) for ratio in np.median(quartiles / quartiles[0], axis=1)]
