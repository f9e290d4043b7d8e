"""Mean and deviation of each window's own rows: what ``--scaling window`` scales by."""

import itertools
from collections.abc import Sequence

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.files.arrays import Array

__all__ = [
    "WINDOW_FLOOR",
    "deviations_by_series",
    "nearby_mean",
    "typical_deviation",
    "window_statistics",
]

WINDOW_FLOOR = 0.1
"""Least deviation that a window is divided by, as a share of the scale that a model stores.

A window that stands still would turn its noise, or its next step, into values without bound."""
SMALL_SERIES = 0.05
"""Which of the series decides the stored scale: 5 % of them swing less."""
WINDOWS = 20_000
"""Training windows that are looked at, about; of each series at least `LEAST_WINDOWS`."""
LEAST_WINDOWS = 8

NEARBY = 1e-4
"""Most that float32 may round off a stored mean, as a share of the scale."""


def window_statistics(
    inputs: Array, kept: Array | None, mean: Array, scale: Array
) -> tuple[Array, Array]:
    """Return what a model that scales by window subtracts from each window, and divides it by.

    Args:
        inputs: (batch, sequence, columns) in raw units, NaN where a value is missing.
        kept: (batch, sequence): 1 where a position is kept; None keeps all.
        mean: (columns,): the mean that the model stores.
        scale: (columns,): the scale that it stores.

    Returns:
        Mean and deviation of the values that are there, float64 (batch, columns), in raw units. A window
        without any has the stored mean; no deviation is below `WINDOW_FLOOR` of the stored scale.
    """
    centred = (inputs.astype(np.float64) - mean) / scale
    seen = ~np.isnan(centred)
    if kept is not None:
        seen &= np.asarray(kept).astype(bool)[:, :, None]
    count = np.maximum(seen.sum(axis=1), 1)
    own = np.where(seen, centred, 0.0).sum(axis=1) / count
    squared = np.where(seen, np.square(centred - own[:, None]), 0.0).sum(axis=1) / count
    deviation = np.maximum(np.sqrt(squared), WINDOW_FLOOR)
    return own * scale + mean, deviation * scale


def deviations_by_series(columns: Columns, stops: Array, context: int) -> Array:
    """Return the median deviation of each series' training windows, of those that do not stand still.

    Args:
        columns: The table rows.
        stops: int64: one past the last row of each training window.
        context: Table rows of a window, fewer where its series, or what follows a gap, begins.

    Returns:
        float64 (series, columns), NaN where no window of a series moves.
    """
    bounds = columns.bounds
    series = len(bounds) - 1
    found = np.full((series, len(columns.names)), np.nan)
    most = max(LEAST_WINDOWS, WINDOWS // series)
    stops = np.sort(stops)
    places = np.searchsorted(stops - 1, bounds)
    for number, (begin, end) in enumerate(itertools.pairwise(places.tolist())):
        if begin == end:
            continue
        chosen = np.unique(np.linspace(begin, end - 1, most).round().astype(np.int64))
        found[number] = _median_deviation(columns, stops[chosen], context)
    return found


def _median_deviation(columns: Columns, stops: Array, context: int) -> Array:
    parts = []
    for start in range(0, len(stops), 256):  # a long context would make one array too large
        taken = stops[start : start + 256]
        first = columns.piece_starts(taken - 1)[:, None]
        rows = taken[:, None] + np.arange(-context, 0)
        values = columns.values[np.maximum(rows, first)]
        values = np.where((rows >= first)[:, :, None], values, np.nan)
        seen = ~np.isnan(values)
        count = np.maximum(seen.sum(axis=1), 1)
        # Relative to a value of the window: squares of a high level would lose its swing.
        origin = values[
            np.arange(len(values))[:, None], seen.argmax(axis=1), np.arange(values.shape[2])
        ]
        moved = np.where(seen, values - origin[:, None], 0.0)
        mean = moved.sum(axis=1) / count
        squared = np.where(seen, np.square(moved - mean[:, None]), 0.0).sum(axis=1) / count
        parts.append(np.sqrt(squared))
    deviations = np.concatenate(parts)
    medians = np.full(deviations.shape[1], np.nan)
    for place, column in enumerate(deviations.T):
        moving = column[column > 0]
        if len(moving):
            medians[place] = np.median(moving)
    return medians


def typical_deviation(by_series: Array, otherwise: Sequence[float] | Array) -> Array:
    """Return the scale that a model by window stores: of a series that swings little, for it sets the floor of all.

    Args:
        by_series: As `deviations_by_series` gives.
        otherwise: (columns,): what stands in where no window of a column moves.

    Returns:
        float64 (columns,).
    """
    scale = np.array(otherwise, np.float64)
    for place, column in enumerate(by_series.T):
        known = column[~np.isnan(column)]
        if len(known):
            scale[place] = np.quantile(known, SMALL_SERIES, method="lower")
    return scale


def nearby_mean(mean: Array, scale: Array) -> Array:
    """Return the mean that a model in float32 subtracts before it looks at a window: 0 where that costs digits.

    Of series at 1 and at 40,000 it is far from both: 1 - 20,000 in float32 has lost what the series at 1 does.

    Args:
        mean: (columns,): of the training rows.
        scale: (columns,): as `typical_deviation` gives.
    """
    near: Array = np.abs(mean) * 2.0**-24 <= NEARBY * scale
    return np.where(near, mean, 0.0)
