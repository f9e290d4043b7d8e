"""Block bootstrap of a test split: how far a score may move because another test period could have come.

Neighbouring windows overlap, and seasons and weather last: their errors are not independent. So blocks of neighbouring
samples are drawn, not samples (Kuensch 1989), and blocks that reach past the end go on at the start (Politis and
Romano 1992), so that every sample is drawn as often as any other.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from loopedge.tasks.metrics import Tally, metric_value
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.task import Array, Task

__all__ = ["Blocks", "block_length", "draw_blocks", "metric_draws"]

DRAWS = 1000
"""Resamplings: an error of a standard error of 2 %."""
LEAST_BLOCKS = 4
"""A series of samples is cut into so many blocks at least: of fewer no deviation is known."""
INSIGNIFICANT = 5
"""So many autocorrelations in a row are within their noise where a series has forgotten itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Resamplings of the samples of a split.

    Args:
        weights: int64 (draws, samples): how often each sample counts.
        length: Samples of a block.
        count: Blocks of the split: by so many independent pieces a score is known.
    """

    weights: Array
    length: int
    count: int


def block_length(values: Array, *, least: int = 1) -> int:
    """Return how many neighbouring samples make a block, by what each sample adds to a score.

    The length of Politis and White (2004, Automatic block-length selection for the dependent bootstrap), as corrected by
    Patton, Politis and White (2009), for blocks that wrap around.

    Args:
        values: float64 (samples,), in their order: differences of the errors of two forecasts, for example.
        least: No shorter; windows overlap over a horizon.

    Returns:
        A length from 1 to a quarter of the samples.
    """
    samples = len(values)
    most = max(1, samples // LEAST_BLOCKS)
    shortest: int = min(max(1, least), most)
    centred = values - values.mean() if samples else values
    if samples < 2 * INSIGNIFICANT or not np.square(centred).sum() > 0:
        return shortest
    lags = min(samples - 1, math.ceil(math.sqrt(samples)) + INSIGNIFICANT)
    covariance = np.array([centred[lag:] @ centred[: samples - lag] for lag in range(lags + 1)])
    covariance /= samples
    memory = _memory(covariance / covariance[0], samples)
    reach = min(2 * memory, lags)
    at = np.arange(1, reach + 1)
    taper = np.minimum(1.0, 2 * (1 - at / max(1, reach)))
    curve = 2 * float((taper * at * covariance[1 : reach + 1]).sum())
    level = float(covariance[0] + 2 * (taper * covariance[1 : reach + 1]).sum())
    if level <= 0:
        return shortest
    found = math.cbrt(1.5 * curve**2 / level**2 * samples)
    return max(shortest, min(math.ceil(found), most))


def _memory(correlation: Array, samples: int) -> int:
    """Return the last lag before a run of autocorrelations that are within their noise."""
    noise = 2 * math.sqrt(math.log10(samples) / samples)
    small = np.abs(correlation[1:]) < noise
    for lag in range(len(small) - INSIGNIFICANT + 1):
        if small[lag : lag + INSIGNIFICANT].all():
            return max(1, lag)
    large = np.flatnonzero(~small)
    return int(large[-1]) + 1 if len(large) else 1


def draw_blocks(series: Array, *, length: int, draws: int = DRAWS, seed: int = 0) -> Blocks:
    """Draw blocks of neighbouring samples, as many samples of each series as it has.

    Args:
        series: int (samples,): which series each sample is of; those of one stand together, in the order of time.
        length: Samples of a block; a shorter series is one block. 1: the samples are independent.
        draws: Resamplings.
        seed: Equal seeds draw equal blocks, whatever is scored with them.

    Unchecked: series are taken as independent of each other. Where one day is good or bad for all of them, the
        deviation is larger than what is drawn here.
    """
    samples = len(series)
    generator = np.random.default_rng([seed, samples, length])
    weights = np.zeros((draws, samples), np.int64)
    edges = [0, *(1 + np.flatnonzero(np.diff(series))).tolist(), samples] if samples else []
    count = 0
    short = []
    for first, end in itertools.pairwise(edges):
        rows = end - first
        if rows <= length and len(edges) > 2:  # drawn as a whole, below
            short.append((first, end))
            continue
        blocks = -(-rows // length)
        starts = generator.integers(rows, size=(draws, blocks))
        rows_drawn = (starts[:, :, None] + np.arange(length)) % rows
        flat = rows_drawn.reshape(draws, -1)[:, :rows] + first
        places = flat + samples * np.arange(draws)[:, None]
        weights += np.bincount(places.ravel(), minlength=draws * samples).reshape(draws, samples)
        count += max(1, rows // length)
    if short:
        times = generator.multinomial(len(short), np.full(len(short), 1 / len(short)), size=draws)
        for place, (first, end) in enumerate(short):
            weights[:, first:end] += times[:, place, None]
        count += len(short)
    return Blocks(weights=weights, length=length, count=count)


def metric_draws(task: Task, tallies: Tally, blocks: Blocks, metric: str | None = None) -> Array:
    """Return a metric in each resampling: float64 (draws,), NaN where it is undefined.

    Args:
        task: Makes metrics of sums.
        tallies: What each sample adds, as `sample_tallies`; the samples of ``blocks``, in their order.
        blocks: Resamplings. Two forecasts that are compared take the same.
        metric: Default: the one that decides.
    """
    name = task.metric if metric is None else metric
    totals = weighted_total(tallies, blocks.weights)
    return np.array(
        [
            metric_value(task.metrics({key: values[draw] for key, values in totals.items()}), name)
            for draw in range(len(blocks.weights))
        ]
    )
