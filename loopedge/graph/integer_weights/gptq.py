"""Round a weight so that what its linear gives changes least: GPTQ (Frantar et al., arXiv 2210.17323), in blocks.

Rounding to nearest makes the error of every weight small. What counts is the error of the products, over what the linear
really reads: for a row w that becomes q, (w - q) H (w - q)^T with H = sum of x^T x over the inputs x. Columns are rounded one
after another, and each error is made good by the columns that are not rounded yet. The columns of a few inputs are updated at
once, the others by one matrix product afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.integer_weights.blocks import (
    Blocks,
    block_levels,
    pack_levels,
    plain_scales,
)

__all__ = ["DAMPING", "Gptq", "inverse_factor", "output_error"]

Array = npt.NDArray[Any]
DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it: with fewer samples than inputs it has no inverse."""
LAZY = 64
"""Columns between two updates of all that follow: a power of two, so that blocks start where it does or inside."""
SMALL_FACTOR = 64
"""Triangles of at most so many columns are inverted at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """How the weights that read one value are rounded.

    Args:
        order: The columns in the order of their rounding.
        factor: U, upper, float32 (inputs, inputs) in that order; U^T U is the inverse of the Hessian.
        ordered: The order is not that of the weight: the scales of all blocks are those of the weight as it is; else a
            block's scale is found when it is reached.
    """

    order: npt.NDArray[np.int64]
    factor: npt.NDArray[np.float32]
    ordered: bool

    @classmethod
    def of(cls, hessian: Array, *, damping: float = DAMPING, act_order: bool = False) -> "Gptq":
        """Prepare the rounding of all weights that read one value.

        Args:
            hessian: float (inputs, inputs), the sum of x^T x over what the linears read. Not modified.
            damping: Share of the mean diagonal that is added to it.
            act_order: Columns of the largest inputs first.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(hessian).all():
            raise ValueError("a Hessian that is not finite cannot be used")
        order = np.arange(len(hessian))
        if act_order:
            order = np.argsort(-np.diagonal(hessian), kind="stable")
            hessian = hessian[np.ix_(order, order)]
        factor = inverse_factor(hessian, damping).astype(np.float32)
        return cls(order=order, factor=factor, ordered=act_order)

    def round(self, rows: Array, *, bits: int, block_size: int) -> Blocks:
        """Round a weight.

        Args:
            rows: float (outputs, inputs).
            bits: 8, 4 or 2.
            block_size: One of `blocks.BLOCK_SIZES`.

        Returns:
            The packed weight. A column that reads nothing but zeros is rounded to nearest.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(rows).all():
            raise ValueError("a weight that is not finite cannot be rounded")
        outputs, inputs = rows.shape
        count = -(-inputs // block_size)
        columns = np.ascontiguousarray(rows.T[self.order], np.float32)  # (inputs, outputs)
        work = _Columns(columns, self.factor, self.order, bits, block_size)
        if self.ordered:
            filled = np.zeros((outputs, count * block_size), np.float32)
            filled[:, :inputs] = rows
            work.scales[:] = plain_scales(filled.reshape(outputs, count, block_size), bits).T
        for start in range(0, inputs, LAZY):
            work.round_some(start, min(start + LAZY, inputs), find_scales=not self.ordered)
        levels = np.zeros((outputs, count * block_size), np.float32)
        levels[:, self.order] = work.levels.T
        packed = pack_levels(levels.reshape(outputs, count, block_size), bits)
        return Blocks(packed, np.ascontiguousarray(work.scales.T), bits, inputs)


class _Columns:
    """A weight (inputs, outputs) in the order of its rounding, what is rounded of it, and the scales of its blocks."""

    def __init__(
        self, columns: Array, factor: Array, order: Array, bits: int, block_size: int
    ) -> None:
        inputs, outputs = columns.shape
        self._columns, self._factor, self._bits, self._size = columns, factor, bits, block_size
        self._blocks = order // block_size
        self.levels = np.empty((inputs, outputs), np.float32)
        self.scales = np.empty((-(-inputs // block_size), outputs), np.float32)

    def round_some(self, start: int, end: int, *, find_scales: bool) -> None:
        """Round some columns one by one, then let all that follow make good their errors."""
        columns, factor = self._columns, self._factor
        errors = np.empty((end - start, columns.shape[1]), np.float32)
        for place in range(start, end):
            if find_scales and place % self._size == 0:
                self._find_scales(place)
            scale = self.scales[self._blocks[place]]
            levels = block_levels(columns[place], scale, self._bits)
            self.levels[place] = levels
            error = (columns[place] - levels * scale) / factor[place, place]
            columns[place + 1 : end] -= np.outer(factor[place, place + 1 : end], error)
            errors[place - start] = error
        columns[end:] -= factor[start:end, end:].T @ errors

    def _find_scales(self, place: int) -> None:
        found = self._columns[place : place + self._size]
        self.scales[place // self._size] = plain_scales(found.T, self._bits)


def inverse_factor(hessian: Array, damping: float) -> Array:
    """Return U, upper, with U^T U the inverse of a Hessian; float64 (inputs, inputs).

    Args:
        hessian: float (inputs, inputs), positive semidefinite.
        damping: Share of its mean diagonal that is added; an input that is always zero counts as one of that size.
    """
    damped = hessian.astype(np.float64)
    diagonal = np.diagonal(damped).copy()
    dead = diagonal <= 0
    mean = float(diagonal[~dead].mean()) if not dead.all() else 1.0
    damped[np.diag_indices_from(damped)] = np.where(dead, mean, diagonal) + damping * mean
    share = max(damping, np.finfo(np.float64).eps)
    while True:
        try:
            lower = np.linalg.cholesky(damped[::-1, ::-1])
            break
        except np.linalg.LinAlgError:  # rounding of sums: float32 Hessians of few samples
            share *= 10
            damped[np.diag_indices_from(damped)] += share * mean
    return _inverse_upper(lower[::-1, ::-1])


def _inverse_upper(upper: Array) -> Array:
    """Return the inverse of an upper triangle: [[A, B], [0, C]] has [[A', -A' B C'], [0, C']]."""
    size = len(upper)
    if size <= SMALL_FACTOR:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    first, last = _inverse_upper(upper[:half, :half]), _inverse_upper(upper[half:, half:])
    found = np.zeros_like(upper)
    found[:half, :half], found[half:, half:] = first, last
    found[:half, half:] = -(first @ upper[:half, half:]) @ last
    return found


def output_error(rows: Array, rounded: Array, hessian: Array) -> float:
    """Return the sum of (w - q) H (w - q)^T over all rows."""
    error = (rows - rounded).astype(np.float64)
    return float(np.einsum("oi,oi->", error @ hessian.astype(np.float64), error))
