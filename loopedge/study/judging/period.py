"""What luck the test split itself has: by how much a difference between models varies with the samples that judge them.

The windows of a series overlap and follow each other, so they are not independent: they are drawn in blocks. The
moving-block bootstrap (Kuensch 1989) of a metric has a variance that can be computed rather than drawn: each sample's
influence on the metric is summed over every block, and the variance of these sums is what the draws would have. Windows of
several series, and of several origins, are kept apart.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from loopedge.data.split import Split
from loopedge.files.arrays import Array
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.metrics import Metrics, Tally, metric_value
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.tasks.text import TextTask

__all__ = [
    "Blocks",
    "PeriodLuck",
    "Windows",
    "blocks_of",
    "influences",
    "period_luck",
    "windows_of",
]

STEP = 0.01
"""Share of a sample's weight by which the metric is moved to find its influence."""
LEAST_BLOCKS = 4
"""A block is no longer than a quarter of the samples."""
MOST_CORRECTION = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How the samples of a test split hang together, in the order of `Task.evaluation`.

    Args:
        series: int64 (samples,): which of several series each belongs to.
        places: int64 (samples,): its table row or position within all.
        reach: Table rows that the targets of a sample span: neighbours nearer than that share some. 0: the samples are
            independent of each other.
    """

    series: Array
    places: Array
    reach: int

    @classmethod
    def independent(cls, samples: int) -> "Windows":
        """Return samples that say nothing of each other."""
        return cls(series=np.zeros(samples, np.int64), places=np.arange(samples), reach=0)

    @property
    def stride(self) -> int:
        """Return how many table rows neighbours are apart."""
        steps = np.diff(self.places)[np.diff(self.series) == 0]
        return max(1, round(float(np.median(steps)))) if len(steps) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How samples are drawn.

    Args:
        length: Samples in a block.
        correction: What a variance over blocks is multiplied by: blocks leave out what samples of two blocks have in
            common, which makes it too small by G / length of its value (Kuensch 1989).
    """

    length: int
    correction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodLuck:
    """What differences vary by with the samples of a test split.

    Args:
        covariance: float64 (candidates, candidates), of the metric's differences.
        degrees: Of freedom that it is known with.
        length: Samples in a block; 1 where they are independent.
        samples: Of the test split.
    """

    covariance: Array
    degrees: float
    length: int
    samples: int


def windows_of(task: Task, samples: int, split: Split = "test") -> Windows | None:
    """Return how the samples of an evaluation hang together; None where each seed draws its own.

    Args:
        task: At one origin.
        samples: Most samples of an evaluation.
        split: Which part.
    """
    available = task.available(split)
    if available is None:
        return None
    if isinstance(task, SeriesTask):
        stops = task.evaluated_stops(split, samples)
        return Windows(
            series=task.columns.series_of(stops - 1), places=stops, reach=max(1, task.horizon)
        )
    count = min(available, samples)
    if isinstance(task, LabelledSeriesTask) and task.group is None:
        stops = task.evaluated_stops(split, samples)
        return Windows(series=task.columns.series_of(stops - 1), places=stops, reach=1)
    if isinstance(task, TextTask):
        return Windows(series=np.zeros(count, np.int64), places=np.arange(count), reach=1)
    return Windows.independent(count)


def influences(
    tally: Tally, metrics: Callable[[Tally], Metrics], metric: str, *, step: float = STEP
) -> Array:
    """Return by how much the metric changes with the weight of each sample: float64 (samples,).

    They sum to nothing, as a metric does not change where all weights grow alike.

    Args:
        tally: What each sample adds, as `sample_tallies`.
        metrics: Makes metrics of sums, as `Task.metrics`.
        metric: Which one.
        step: Share of a sample's weight.
    """
    whole = {name: values.sum(axis=0) for name, values in tally.items()}
    samples = len(next(iter(tally.values())))
    found = np.empty(samples)
    for sample in range(samples):
        more = {name: whole[name] + step * values[sample] for name, values in tally.items()}
        less = {name: whole[name] - step * values[sample] for name, values in tally.items()}
        change = metric_value(metrics(more), metric) - metric_value(metrics(less), metric)
        found[sample] = change / (2 * step)
    return found


def period_luck(changes: Array, windows: Windows, *, bounded: bool = False) -> PeriodLuck:
    """Return the covariance of differences over the samples of one test split.

    Args:
        changes: float64 (candidates, samples): influence on the metric of each candidate less that of the baseline.
        windows: How the samples hang together.
        bounded: The metric is a share, as accuracy. Then two samples are added, of which one speaks for either side
            (Bonett and Price 2012): where no sample tells two models apart, their difference is still not known to be 0.
    """
    candidates, samples = changes.shape
    centred = changes - changes.mean(axis=1, keepdims=True)
    blocks = blocks_of(centred.mean(axis=0), windows)
    length = blocks.length
    covariance = _block_covariance(centred, windows.series, length)
    if windows.reach and len(np.unique(windows.series)) > 1:
        covariance = _larger(covariance, _joint_covariance(centred, windows, length))
    covariance = covariance * blocks.correction
    if bounded:
        covariance = covariance + 2 * (length / samples) ** 2 * np.eye(candidates)
    degrees = min(samples - 1.0, 1.5 * samples / length)
    return PeriodLuck(
        covariance=covariance, degrees=max(1.0, degrees), length=length, samples=samples
    )


def blocks_of(changes: Array, windows: Windows) -> Blocks:
    """Return how long blocks are: as far as samples share targets, and as their autocorrelation asks.

    The latter by the rule of Politis and White (2004, corrected 2009), within series. At most a quarter of a series.

    Args:
        changes: float64 (samples,): with mean 0.
        windows: How the samples hang together.
    """
    if windows.reach == 0:
        return Blocks(length=1, correction=1.0)
    shared = -(-windows.reach // windows.stride)
    bias = _bias(changes, windows.series)
    automatic = math.ceil(math.cbrt(1.5 * bias**2 * len(changes)))
    longest = int(np.bincount(windows.series - windows.series.min()).max())
    length = max(1, min(max(2 * shared - 1, automatic), longest // LEAST_BLOCKS))
    bias = max(
        bias, (shared**2 - 1) / (3 * shared)
    )  # of sums of as many neighbours without any autocorrelation
    correction = 1 / max(1 / MOST_CORRECTION, 1 - bias / length)
    return Blocks(length=length, correction=correction)


def _block_covariance(changes: Array, series: Array, length: int) -> Array:
    """Return the covariance of the sums of ``changes`` over resampled blocks, kept apart by series."""
    candidates, samples = changes.shape
    covariance = np.zeros((candidates, candidates))
    for number in np.unique(series):
        own = changes[:, series == number]
        size = own.shape[1]
        own_length = min(length, size)
        sums = np.cumsum(np.concatenate([np.zeros((candidates, 1)), own], axis=1), axis=1)
        blocks = sums[:, own_length:] - sums[:, :-own_length]
        covariance += size / own_length * (blocks @ blocks.T) / blocks.shape[1]
    scaled: Array = covariance * (samples / max(1, samples - length))
    return scaled


def _joint_covariance(changes: Array, windows: Windows, length: int) -> Array:
    """Return the covariance where series of one panel move together: blocks hold all series, from their ends back."""
    ends = {
        number: windows.places[windows.series == number].max()
        for number in np.unique(windows.series)
    }
    back = np.array([ends[number] for number in windows.series.tolist()]) - windows.places
    order = np.unique(back // windows.stride, return_inverse=True)[1]
    rows = int(order.max()) + 1
    together = np.zeros((len(changes), rows))
    for row, change in zip(together, changes, strict=True):
        np.add.at(row, order, change)
    return _block_covariance(
        together, np.zeros(rows, np.int64), max(1, min(length, rows // LEAST_BLOCKS))
    )


def _larger(one: Array, other: Array) -> Array:
    return one if np.trace(one) >= np.trace(other) else other


def _bias(changes: Array, series: Array) -> float:
    """Return by how much of its value, times the length of a block, a variance over blocks is too small.

    That is the sum of |lag| times autocovariance over the sum of autocovariances, under a flat-top window that ends where
    they cannot be told from 0.
    """
    samples = len(changes)
    run = max(5, math.ceil(math.log10(samples)))
    most = math.ceil(math.sqrt(samples)) + run
    covariances = _autocovariances(changes, series, most)
    if covariances[0] <= 0:
        return 0.0
    correlations = np.abs(covariances[1:] / covariances[0])
    quiet = correlations < 2 * math.sqrt(math.log10(samples) / samples)
    last = next(
        (lag for lag in range(len(quiet) - run + 1) if quiet[lag : lag + run].all()),
        len(quiet) - run,
    )
    reach = min(2 * max(1, last), most)
    lags = np.arange(-reach, reach + 1)
    weights = np.clip(2 * (1 - np.abs(lags) / reach), 0, 1)  # the flat top
    values = covariances[np.abs(lags)]
    change, level = float((weights * np.abs(lags) * values).sum()), float((weights * values).sum())
    return max(0.0, change / level) if level > 0 else 0.0


def _autocovariances(changes: Array, series: Array, most: int) -> Array:
    """Return those of lags 0 to ``most``, of neighbours in one series."""
    found = np.zeros(most + 1)
    for lag in range(min(most, len(changes) - 1) + 1):
        same = series[lag:] == series[: len(series) - lag]
        found[lag] = float((changes[lag:] * changes[: len(changes) - lag])[same].sum())
    return found / len(changes)


def average(parts: Mapping[str, PeriodLuck]) -> PeriodLuck:
    """Return the luck of a mean over several test splits that share no sample."""
    count = len(parts)
    covariance = sum(part.covariance for part in parts.values()) / count**2
    return PeriodLuck(
        covariance=np.asarray(covariance),
        degrees=sum(part.degrees for part in parts.values()),
        length=max(part.length for part in parts.values()),
        samples=sum(part.samples for part in parts.values()),
    )
