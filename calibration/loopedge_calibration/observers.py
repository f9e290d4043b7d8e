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
    counts, centres = histograms.counts, histograms.centres()
    total = np.maximum(counts.sum(axis=1), 1)
    inside = (centres >= low[:, None]) & (centres <= high[:, None])
    outside = np.where(inside, 0.0, centres - centres.clip(low[:, None], high[:, None]))
    step = (high - low) / STEPS
    rounded = (counts * inside).sum(axis=1) * step**2 / 12
    return np.asarray((rounded + (counts * outside**2).sum(axis=1)) / total, np.float64)


def _minmax(histograms: RowHistograms) -> tuple[Rows, Rows]:
    return histograms.low.astype(np.float64), histograms.high.astype(np.float64)


def _mse(histograms: RowHistograms) -> tuple[Rows, Rows]:
    """Shrink both ends together, then each alone, to the least expected error."""
    low, high = (np.minimum(histograms.low, 0.0), np.maximum(histograms.high, 0.0))
    low, high = _best(histograms, [(low * share, high * share) for share in SHRINKS])
    low, high = _best(histograms, [(low, high * share) for share in SHRINKS])
    return _best(histograms, [(low * share, high) for share in SHRINKS])


def _best(histograms: RowHistograms, candidates: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    noise = np.stack([expected_noise(histograms, low, high) for low, high in candidates])
    best = noise.argmin(axis=0)
    rows = np.arange(histograms.rows)
    lows, highs = (np.stack(ends) for ends in zip(*candidates, strict=True))
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
