"""A climatology: level, trend and harmonics of the seasons, of each series by its training rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopedge.baselines.series.windows import SeriesWindows, evenly
from loopedge.tasks.task import Array

__all__ = ["Climatology", "Shape", "TrainingRows", "shapes"]

MOST_ROWS = 100_000
"""Training rows that are looked at, of all series together."""
CYCLES = 4
"""A trend is tried where each season fits into the training rows so often: else the two cannot be told apart."""
RIDGE = 1e-6
"""Penalty per row, so that a series of few rows has a solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a climatology is made of.

    Args:
        periods: In steps, each with its harmonics.
        harmonics: Of each period: fewer where the period has fewer.
        trend: Whether a straight line is part of it.
    """

    periods: tuple[float, ...]
    harmonics: int
    trend: bool

    @property
    def size(self) -> int:
        """Most features that it has."""
        return 1 + self.trend + 2 * self.harmonics * len(self.periods)

    def features(self, places: Array, middle: float, span: float) -> Array:
        """Return level, trend, sines and cosines at places in time: float64 (places, features)."""
        parts = [np.ones_like(places)]
        if self.trend:
            parts.append((places - middle) / span)
        for period in self.periods:
            for number in range(1, min(self.harmonics, int(period // 2)) + 1):
                angle = 2 * np.pi * number * places / period
                parts.append(np.cos(angle))
                if 2 * number != period:
                    parts.append(np.sin(angle))
        return np.stack(parts, axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """The training rows of all series, or evenly spaced ones of many.

    Args:
        series: int64 (rows,), ascending.
        places: float64 (rows,): where they stand in time.
        values: float64 (rows, targets).
        asked: bool (rows, targets): where a value was observed.
    """

    series: Array
    places: Array
    values: Array
    asked: Array

    @classmethod
    def of(cls, windows: SeriesWindows, places: Array) -> "TrainingRows":
        """Take them from a table."""
        task = windows.task
        rows = np.concatenate(
            [
                np.arange(first, first + bounds["train"].end)
                for (first, _), bounds in zip(task.columns.spans(), task.bounds, strict=True)
            ]
        )
        rows = evenly(rows, MOST_ROWS)
        return cls(
            series=task.columns.series_of(rows),
            places=places[rows],
            values=windows.values[rows, : task.targets],
            asked=task.columns.observed[rows, : task.targets],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Climatology:
    """A shape that was fitted.

    Args:
        shape: What it is made of.
        middle: Place in time that the trend is counted from.
        span: Steps over which the trend is counted.
        weights: float64 (series, features, targets).
    """

    shape: Shape
    middle: float
    span: float
    weights: Array

    @classmethod
    def fit(cls, shape: Shape, rows: TrainingRows, series: int) -> "Climatology":
        """Fit it by least squares, series by series; a series without training rows gets zeros."""
        low, high = float(rows.places.min(initial=0.0)), float(rows.places.max(initial=1.0))
        middle, span = (low + high) / 2, max(1.0, (high - low) / 2)
        features = shape.features(rows.places, middle, span)
        size, targets = features.shape[1], rows.values.shape[1]
        weights = np.zeros((series, size, targets))
        for target in range(targets):
            asked = rows.asked[:, target]
            seen, values, numbers = features[asked], rows.values[asked, target], rows.series[asked]
            if not len(seen):
                continue
            there, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
            level = np.add.reduceat(values, starts) / counts
            values = values - np.repeat(level, counts)  # a high level would cost digits
            gram = np.empty((len(there), size, size))
            for one in range(size):
                sums = np.add.reduceat(seen * seen[:, one : one + 1], starts, axis=0)
                gram[:, one] = sums
            gram += RIDGE * counts[:, None, None] * np.eye(size)
            right = np.add.reduceat(seen * values[:, None], starts, axis=0)
            found = np.linalg.solve(gram, right[:, :, None])[:, :, 0]
            found[:, 0] += level
            weights[there, :, target] = found
        return cls(shape=shape, middle=middle, span=span, weights=weights)

    def at(self, series: Array, places: Array) -> Array:
        """Return it at places in time: float64 (..., targets), of the series of each, (...)."""
        features = self.shape.features(places, self.middle, self.span)
        if len(self.weights) == 1:
            return np.asarray(features @ self.weights[0])
        found: Array = np.einsum("...f,...ft->...t", features, self.weights[series])
        return found


def shapes(periods: Sequence[float], span: float) -> list[Shape]:
    """Return the shapes that are tried: no season, each of them, and each two of them.

    Args:
        periods: Seasons in steps.
        span: Steps of the training rows: a season must fit in twice.
    """
    known = sorted({period for period in periods if 2 * period <= span})
    sets: list[tuple[float, ...]] = [(), *((period,) for period in known)]
    sets += [(one, other) for place, one in enumerate(known) for other in known[place + 1 :]]
    found = []
    for chosen in sets:
        counts = (1, 2, 3, 4, 6) if chosen else (0,)
        trends = (False, True) if span >= CYCLES * max(chosen, default=0.0) else (False,)
        found += [
            Shape(periods=chosen, harmonics=count, trend=trend)
            for trend in trends
            for count in counts
        ]
    return found
