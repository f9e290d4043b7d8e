"""Streaming histograms of activations: one row per iteration, the same whatever the order of the data."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "RowHistograms"]

BINS = 4096
"""Bins of each row; at least a quarter of them lie between zero and the largest magnitude, and a range of u8
has 255 steps."""


class RowHistograms:
    """Counts, smallest and largest value of each row.

    The bins of a row span [-limit, limit), and the limit is the power of two above the largest magnitude. So
    bins of every limit stand on one grid: where a larger value comes, neighbours are merged, and a value
    lies in the same bin whether it was seen before or after. One pass over the data suffices, and batches in
    another order give the same counts, bit by bit.

    Args:
        rows: Iterations, or 1. Where a batch ran more, there are more from then on.

    Unchecked: values are finite.
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
        """Add values, float (iterations, ...); a Loop that ends itself may have run fewer than there are rows, or more."""
        ran = len(values)
        if ran > self.rows:
            wider = self.first(ran)
            self.counts, self.limit, self.low, self.high = (
                wider.counts,
                wider.limit,
                wider.low,
                wider.high,
            )
        if values.size == 0:
            return
        flat = values.reshape(ran, -1)
        self.low[:ran] = np.minimum(self.low[:ran], flat.min(axis=1))
        self.high[:ran] = np.maximum(self.high[:ran], flat.max(axis=1))
        for row in range(ran):
            self._grow(row, _limit_above(float(np.abs(flat[row]).max())))
            if self.limit[row] == 0:
                self.counts[row, BINS // 2] += flat.shape[1]
                continue
            # In float64 the product with a power of two is exact, and floor is that of the value itself.
            steps = np.floor(flat[row].astype(np.float64) * (BINS / 2 / self.limit[row]))
            self.counts[row] += np.bincount(steps.astype(np.int64) + BINS // 2, minlength=BINS)

    def first(self, rows: int) -> "RowHistograms":
        """Return so many rows; those that are not there hold nothing."""
        taken, kept = RowHistograms(rows), min(rows, self.rows)
        for name in ("counts", "limit", "low", "high"):
            getattr(taken, name)[:kept] = getattr(self, name)[:kept]
        return taken

    def _grow(self, row: int, limit: float) -> None:
        """Span a larger limit; what was counted at a limit of 0 is zeros, in the middle bin of every grid."""
        if self.limit[row] == 0:
            self.limit[row] = limit
        if limit > self.limit[row]:
            self.counts[row] = _merged(self.counts[row], round(np.log2(limit / self.limit[row])))
            self.limit[row] = limit

    def centres(self) -> npt.NDArray[np.float64]:
        """Return the middles of the bins, float64 (rows, BINS)."""
        return self.limit[:, None] * ((np.arange(BINS) + 0.5) * (2 / BINS) - 1)

    def pooled(self) -> "RowHistograms":
        """Return one row that holds all rows together."""
        whole = RowHistograms(1)
        whole.low, whole.high = self.low.min(keepdims=True), self.high.max(keepdims=True)
        whole.limit = self.limit.max(keepdims=True)
        for limit, counts in zip(self.limit, self.counts, strict=True):
            doublings = round(np.log2(whole.limit[0] / limit)) if limit > 0 else 0
            whole.counts[0] += _merged(counts, doublings)
        return whole


def _limit_above(largest: float) -> float:
    """Return the least power of two above a magnitude; 0 for 0."""
    return float(np.ldexp(1.0, np.frexp(largest)[1])) if largest > 0 else 0.0


def _merged(counts: npt.NDArray[np.int64], doublings: int) -> npt.NDArray[np.int64]:
    """Return the counts of a row whose limit was doubled so often: its bins in pairs, about the middle."""
    for _ in range(min(doublings, BINS.bit_length())):
        pairs = counts.reshape(-1, 2).sum(axis=1)
        counts = np.zeros_like(counts)
        counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
    return counts
