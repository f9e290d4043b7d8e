"""What is subtracted from a window, and what it is divided by, before a regression looks at it."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from loopedge.baselines.series.windows import SeriesWindows
from loopedge.tasks.task import Array

__all__ = ["LEVELS", "Level", "Levelled"]

Level = Literal["training mean", "last value", "window mean"]
"""What values are measured from. ``window mean``: also divided by the window's deviation."""
LEVELS: tuple[Level, ...] = get_args(Level)

FLOOR = 0.1
"""Least deviation that a window is divided by, as a share of the training rows'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levelled:
    """The rows before some stops, measured from their own level.

    Args:
        lags: float64 (windows, count, columns), the latest first.
        level: float64 (windows, columns): what was subtracted.
        size: float64 (windows, columns): what they were divided by.
    """

    lags: Array
    level: Array
    size: Array

    @classmethod
    def of(cls, windows: SeriesWindows, stops: Array, count: int, level: Level) -> "Levelled":
        """Measure the last ``count`` rows before some stops from a level of all that a model sees."""
        task = windows.task
        columns = len(task.columns.names)
        lags = windows.lags(stops, count, columns)
        shape = (len(stops), columns)
        if level == "training mean":
            base, size = np.broadcast_to(windows.means, shape), np.ones(shape)
        elif level == "last value":
            base, size = lags[:, 0], np.ones(shape)
        else:
            base, size = _of_window(windows, stops)
        return cls(lags=(lags - base[:, None]) / size[:, None], level=base, size=size)

    def turn(self, targets: Array) -> Array:
        """Measure what followed, (windows, horizon, targets), from the level of its window."""
        count = targets.shape[2]
        return np.asarray((targets - self.level[:, None, :count]) / self.size[:, None, :count])

    def back(self, forecasts: Array) -> Array:
        """Return forecasts in raw units."""
        count = forecasts.shape[2]
        return np.asarray(forecasts * self.size[:, None, :count] + self.level[:, None, :count])


def _of_window(windows: SeriesWindows, stops: Array) -> tuple[Array, Array]:
    """Return mean and deviation of the context before each stop, float64 (windows, columns)."""
    task = windows.task
    means, sizes = [], []
    for first in range(0, len(stops), 256):  # a long context would make one array too large
        part = stops[first : first + 256]
        rows = windows.lags(part, task.context, len(task.columns.names))
        kept = windows.within(part, task.context)[:, :, None]
        count = np.maximum(1, kept.sum(axis=1))
        mean = np.where(kept, rows, 0.0).sum(axis=1) / count
        squared = np.where(kept, np.square(rows - mean[:, None]), 0.0).sum(axis=1) / count
        means.append(mean)
        sizes.append(np.maximum(np.sqrt(squared), FLOOR * windows.spread))
    return np.concatenate(means), np.concatenate(sizes)
