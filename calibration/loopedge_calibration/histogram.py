"""Streaming histograms of activations: one row per iteration, memory that does not grow."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "RowHistograms"]

BINS = 2048
"""Bins of each row; a range of u8 has 255 steps."""


class RowHistograms:
    """Counts, smallest and largest value of each row.

    The bins of a row span [-limit, limit]. When a value falls outside, the limit doubles and
    neighbouring bins are merged, so that one pass over the data suffices.

    Args:
        rows: Iterations, or 1.
    """

    def __init__(self, rows: int) -> None:
        self.counts = np.zeros((rows, BINS), np.int64)
        self.limit = np.zeros(rows)
        self.low = np.full(rows, np.inf)
        self.high = np.full(rows, -np.inf)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.limit)

    def update(self, values: npt.NDArray[Any]) -> None:
        """Add values, float (rows, ...)."""
        flat = values.reshape(self.rows, -1)
        self.low = np.minimum(self.low, flat.min(axis=1))
        self.high = np.maximum(self.high, flat.max(axis=1))
        for row in range(self.rows):
            self._grow(row, float(np.abs(flat[row]).max()))
            if self.limit[row] == 0:
                self.counts[row, BINS // 2] += flat.shape[1]
                continue
            places = ((flat[row] / self.limit[row] + 1) * (BINS / 2)).astype(np.int64)
            self.counts[row] += np.bincount(places.clip(0, BINS - 1), minlength=BINS)

    def _grow(self, row: int, largest: float) -> None:
        if largest == 0 or largest <= self.limit[row]:
            return
        if self.limit[row] == 0:
            self.limit[row] = largest  # what was counted so far is zeros, in the middle bin
            return
        while self.limit[row] < largest:
            merged = self.counts[row].reshape(-1, 2).sum(axis=1)
            self.counts[row] = 0
            self.counts[row, BINS // 4 : BINS // 4 + BINS // 2] = merged
            self.limit[row] *= 2

    def centres(self) -> npt.NDArray[np.float64]:
        """Return the middles of the bins, float64 (rows, BINS)."""
        return self.limit[:, None] * ((np.arange(BINS) + 0.5) * (2 / BINS) - 1)

    def pooled(self) -> "RowHistograms":
        """Return one row that holds all rows together."""
        whole = RowHistograms(1)
        whole.low, whole.high = self.low.min(keepdims=True), self.high.max(keepdims=True)
        whole.limit = self.limit.max(keepdims=True)
        if whole.limit[0] == 0:
            whole.counts = self.counts.sum(axis=0, keepdims=True)
            return whole
        for centres, counts in zip(self.centres(), self.counts, strict=True):
            places = ((centres / whole.limit[0] + 1) * (BINS / 2)).astype(np.int64)
            np.add.at(whole.counts[0], places.clip(0, BINS - 1), counts)
        return whole
