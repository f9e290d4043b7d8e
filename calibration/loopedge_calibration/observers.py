"""Find the range of each row of a histogram: min-max, least squared error, percentile, entropy."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from loopedge_calibration.histogram import BINS, RowHistograms

__all__ = ["METHODS", "expected_noise", "find_ranges"]

Rows = npt.NDArray[np.float64]

STEPS = 255
PERCENTILE = 99.99
"""Share of the values that stay inside, in percent; less hurts the late iterations."""

GRID = (np.arange(BINS) + 0.5) * (2 / BINS) - 1
"""Centres of a row's bins, of a limit of 1."""

SHRINKS = np.linspace(1.0, 0.2, 81)
"""Tried shares of the full range."""


def find_ranges(histograms: RowHistograms, method: str) -> tuple[Rows, Rows]:
    """Return low and high of every row, float64 (rows,); zero always lies between.

    Args:
        histograms: What was seen.
        method: One of `METHODS`.
    """
    low, high = METHODS[method](histograms)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def expected_noise(histograms: RowHistograms, low: Rows, high: Rows) -> Rows:
    """Return the mean squared error of u8 rounding with given ranges, float64 (rows,).

    A value inside is off by a uniform error of one step, one outside by its distance to the range.

    Args:
        histograms: The values.
        low: (rows,) or (1,).
        high: Likewise.
    """
    return _Sums(histograms).expected_noise(low, high)


class _Sums:
    """Sums over the first bins of each row: of counts, and of counts times centres and their squares.

    With them the noise of a range takes a few operations, however many bins there are.
    """

    def __init__(self, histograms: RowHistograms) -> None:
        counts, self._centres = histograms.counts, histograms.centres()
        self._rows = np.arange(histograms.rows)
        self._limit = np.where(histograms.limit > 0, histograms.limit, 1.0)
        self._sums = [
            np.pad(np.cumsum(counts * power, axis=1), ((0, 0), (1, 0)))
            for power in (1.0, self._centres, self._centres**2)
        ]

    def expected_noise(self, low: Rows, high: Rows) -> Rows:
        """Return the noise of ranges (..., rows) or (..., 1); see the function of this name."""
        # Limits are powers of two: the quotients compare with the grid as the ends do with the centres.
        first = np.searchsorted(GRID, low / self._limit, side="left")
        last = np.searchsorted(GRID, high / self._limit, side="right")
        below = [sums[self._rows, first] for sums in self._sums]
        inner = [sums[self._rows, last] for sums in self._sums]
        whole = [sums[:, -1] for sums in self._sums]
        above = [total - part for total, part in zip(whole, inner, strict=True)]
        outside = _squares(below, low) + _squares(above, high)
        step = (high - low) / STEPS
        rounded = (inner[0] - below[0]) * step**2 / 12
        return np.asarray((rounded + outside) / np.maximum(whole[0], 1), np.float64)


def _squares(sums: list[Rows], end: Rows) -> Rows:
    """Return the summed squares of the distances to an end; rounding may leave less than nothing."""
    count, centres, squares = sums
    return np.maximum(squares - 2 * end * centres + end**2 * count, 0.0)


def _minmax(histograms: RowHistograms) -> tuple[Rows, Rows]:
    return histograms.low.astype(np.float64), histograms.high.astype(np.float64)


def _mse(histograms: RowHistograms) -> tuple[Rows, Rows]:
    """Shrink both ends together, then each alone, to the least expected error."""
    low, high = (np.minimum(histograms.low, 0.0), np.maximum(histograms.high, 0.0))
    sums, shares = _Sums(histograms), SHRINKS[:, None]
    low, high = _best(sums, low * shares, high * shares)
    low, high = _best(sums, low + 0 * shares, high * shares)
    return _best(sums, low * shares, high + 0 * shares)


def _best(sums: _Sums, lows: Rows, highs: Rows) -> tuple[Rows, Rows]:
    """Return the ends of the least expected error, of candidates (candidates, rows)."""
    best = sums.expected_noise(lows, highs).argmin(axis=0)
    rows = np.arange(lows.shape[1])
    return lows[best, rows], highs[best, rows]


def _percentile(histograms: RowHistograms) -> tuple[Rows, Rows]:
    tail = (1 - PERCENTILE / 100) / 2
    share = np.cumsum(histograms.counts, axis=1) / np.maximum(
        histograms.counts.sum(axis=1, keepdims=True), 1
    )
    centres, rows = histograms.centres(), np.arange(histograms.rows)
    first = (share > tail).argmax(axis=1)
    last = (share >= 1 - tail).argmax(axis=1)
    low = np.maximum(centres[rows, first], histograms.low)
    return low, np.minimum(centres[rows, last], histograms.high)


def _entropy(histograms: RowHistograms) -> tuple[Rows, Rows]:
    """Choose the clipping with the least Kullback-Leibler divergence from what was seen."""
    low, high = (np.minimum(histograms.low, 0.0), np.maximum(histograms.high, 0.0))
    centres = histograms.centres()
    lows, highs = low.copy(), high.copy()
    for row in range(histograms.rows):
        scores = [
            _divergence(histograms.counts[row], centres[row], low[row] * share, high[row] * share)
            for share in SHRINKS
        ]
        lows[row] *= SHRINKS[int(np.argmin(scores))]
        highs[row] *= SHRINKS[int(np.argmin(scores))]
    return lows, highs


def _divergence(counts: npt.NDArray[np.int64], centres: Rows, low: float, high: float) -> float:
    if high <= low:
        return 0.0
    inside = (centres >= low) & (centres <= high)
    if not inside.any():
        return float("inf")
    first, last = int(inside.argmax()), BINS - 1 - int(inside[::-1].argmax())
    kept = counts[first : last + 1].astype(np.float64)
    clipped = kept.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    level = ((centres[first : last + 1] - low) / (high - low) * STEPS).round().astype(np.int64)
    filled = kept > 0
    mass = np.bincount(level, weights=kept, minlength=STEPS + 1)
    width = np.bincount(level, weights=filled, minlength=STEPS + 1)
    spread = np.where(filled, (mass / np.maximum(width, 1))[level], 0.0)
    seen = clipped > 0
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


METHODS: dict[str, Callable[[RowHistograms], tuple[Rows, Rows]]] = {
    "minmax": _minmax,
    "mse": _mse,
    "percentile": _percentile,
    "entropy": _entropy,
}
"""What ``--method`` names."""
