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

__all__ = ["DAMPING", "Gptq", "fitted_scales", "inverse_factor", "output_error"]

Array = npt.NDArray[Any]
DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it: with fewer samples than inputs it has no inverse."""
LAZY = 64
"""Columns between two updates of all that follow: a power of two, so that blocks start where it does or inside."""
FIT_VALUES = 2**23
"""Values of the systems of equations that are solved at once."""
MOST_CHANGE = 2.0
"""By at most so much a fitted scale is another."""
SMALL_FACTOR = 64
"""Triangles of at most so many columns are inverted at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """How the weights that read one value are rounded.

    Args:
        hessian: float32 (inputs, inputs), with what was added to its diagonal.
        order: The columns in the order of their rounding.
        factor: U, upper, float32 (inputs, inputs) in that order; U^T U is the inverse of the Hessian.
        ordered: The order is not that of the weight: the scales of all blocks are those of the weight as it is; else a
            block's scale is found when it is reached.
    """

    hessian: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64]
    factor: npt.NDArray[np.float32]
    ordered: bool

    @classmethod
    def of(cls, hessian: Array, *, damping: float = DAMPING, act_order: bool = False) -> "Gptq":
        """Prepare the rounding of all weights that read one value.

        Args:
            hessian: float (inputs, inputs), the sum of x^T x over what the linears read. Not modified.
            damping: Share of the mean diagonal that is added to it; an input that is always zero counts as a mean one.
            act_order: Columns of the largest inputs first.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(hessian).all():
            raise ValueError("a Hessian that is not finite cannot be used")
        damped, order = _damped(hessian, damping), np.arange(len(hessian))
        if act_order:
            order = np.argsort(-np.diagonal(damped), kind="stable")
        factor = inverse_factor(damped[np.ix_(order, order)]).astype(np.float32)
        return cls(hessian=damped.astype(np.float32), order=order, factor=factor, ordered=act_order)

    def round(self, rows: Array, *, bits: int, block_size: int, fits: bool = False) -> Blocks:
        """Round a weight.

        Args:
            rows: float (outputs, inputs).
            bits: 8, 4 or 2.
            block_size: One of `blocks.BLOCK_SIZES`.
            fits: Then find the scales that suit these integers best, round once more with them, and fit them again.

        Returns:
            The packed weight. A column that reads nothing but zeros is rounded to nearest.

        Raises:
            ValueError: A value is not finite.
        """
        if not np.isfinite(rows).all():
            raise ValueError("a weight that is not finite cannot be rounded")
        count = -(-rows.shape[1] // block_size)
        filled = np.zeros((len(rows), count * block_size), np.float32)
        filled[:, : rows.shape[1]] = rows
        blocks = filled.reshape(len(rows), count, block_size)
        scales = plain_scales(blocks, bits) if self.ordered else None
        levels, scales = self._levels(rows, blocks.shape, bits, scales)
        if fits:
            scales = fitted_scales(rows, levels, scales, self.hessian)
            levels, scales = self._levels(rows, blocks.shape, bits, scales)
            scales = fitted_scales(rows, levels, scales, self.hessian)
        return Blocks(pack_levels(levels, bits), scales, bits, rows.shape[1])

    def _levels(
        self, rows: Array, shape: tuple[int, ...], bits: int, scales: Array | None
    ) -> tuple[Array, Array]:
        """Return integers and scales: (outputs, blocks, block size) and (outputs, blocks)."""
        columns = np.ascontiguousarray(rows.T[self.order], np.float32)  # (inputs, outputs)
        work = _Columns(columns, self.factor, self.order // shape[2], bits, shape[2])
        if scales is not None:
            work.scales[:] = scales.T
        for start in range(0, len(columns), LAZY):
            work.round_some(start, min(start + LAZY, len(columns)), find_scales=scales is None)
        levels = np.zeros((shape[0], shape[1] * shape[2]), np.float32)
        levels[:, self.order] = work.levels.T
        return levels.reshape(shape), np.ascontiguousarray(work.scales.T)


class _Columns:
    """A weight (inputs, outputs) in the order of its rounding, what is rounded of it, and the scales of its blocks."""

    def __init__(
        self, columns: Array, factor: Array, blocks: Array, bits: int, block_size: int
    ) -> None:
        inputs, outputs = columns.shape
        self._columns, self._factor, self._bits, self._size = columns, factor, bits, block_size
        self._blocks = blocks
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


def _damped(hessian: Array, damping: float) -> Array:
    """Add a share of the mean diagonal, so that there is an inverse; float64."""
    damped = hessian.astype(np.float64)
    diagonal = np.diagonal(damped).copy()
    dead = diagonal <= 0
    mean = 1.0 if dead.all() else float(diagonal[~dead].mean())
    damped[np.diag_indices_from(damped)] = np.where(dead, mean, diagonal) + damping * mean
    return damped


def inverse_factor(hessian: Array) -> Array:
    """Return U, upper, with U^T U the inverse of a Hessian; float64 (inputs, inputs).

    Args:
        hessian: float64 (inputs, inputs), positive definite; where rounding of its sums made it a little less, its
            diagonal is raised.
    """
    tried, share = hessian, 1e-7
    while True:
        try:
            lower = np.linalg.cholesky(tried[::-1, ::-1])
            return _inverse_upper(lower[::-1, ::-1])
        except np.linalg.LinAlgError:
            tried = tried.copy()
            tried[np.diag_indices_from(tried)] += share * np.diagonal(hessian).mean()
            share *= 10


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


def fitted_scales(rows: Array, levels: Array, scales: Array, hessian: Array) -> Array:
    """Return the scales with the least sum of (w - q) H (w - q)^T for these integers: least squares, row by row.

    Args:
        rows: float (outputs, inputs).
        levels: float32 (outputs, blocks, block size), 0 where a row ends.
        scales: float32 (outputs, blocks): of blocks that are zeros, and of those whose scale would change by more than
            `MOST_CHANGE`, these are returned.
        hessian: float32 (inputs, inputs).
    """
    outputs, count, size = levels.shape
    inputs, found = rows.shape[1], np.empty_like(scales)
    step = max(1, FIT_VALUES // max(count * count, inputs))
    for start in range(0, outputs, step):
        some = levels[start : start + step].reshape(-1, count * size)[:, :inputs]
        target = _by_block(some * (rows[start : start + step] @ hessian), count, size)
        products = np.empty((len(some), count, count))
        for block in range(count):
            own = slice(block * size, min((block + 1) * size, inputs))
            products[:, block] = _by_block(some * (some[:, own] @ hessian[own]), count, size)
        found[start : start + step] = _solved(products, target, scales[start : start + step])
    return found


def _by_block(values: Array, count: int, size: int) -> Array:
    """Sum (outputs, inputs) up by block, (outputs, blocks)."""
    return np.add.reduceat(values, np.arange(count) * size, axis=1, dtype=np.float64)


def _solved(products: Array, target: Array, scales: Array) -> Array:
    """Solve for the scales of each row; (outputs, blocks, blocks) and (outputs, blocks)."""
    diagonal = np.einsum("okk->ok", products)
    empty = diagonal <= 0
    diagonal += 1e-6 * diagonal.mean(axis=1, keepdims=True)
    diagonal[empty] = 1.0
    solved = np.linalg.solve(products, np.where(empty, scales, target)[..., None])[..., 0]
    change = solved / scales
    usable = np.isfinite(change) & (change > 1 / MOST_CHANGE) & (change < MOST_CHANGE)
    return np.where(usable, solved, scales).astype(np.float32)


def output_error(rows: Array, rounded: Array, hessian: Array) -> float:
    """Return the sum of (w - q) H (w - q)^T over all rows."""
    error = (rows - rounded).astype(np.float64)
    return float(np.einsum("oi,oi->", error @ hessian.astype(np.float64), error))
