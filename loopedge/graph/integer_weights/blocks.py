"""Round weights in blocks, 8, 4 or 2 bits, packed as ``com.microsoft.MatMulNBits`` reads them.

A weight stands as rows, one per output, each cut into blocks along its inputs; the last block is filled
with zeros. A block has one scale and no zero point: its values are ``(stored - middle) * scale`` with
middle 128, 8 or 2. The scale carries the sign of the block's largest value, so that this one gets the level
that the range has more on one side (-128, -8 or -2). In four bits two neighbours share a byte, in two bits four, the
first in the lowest bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BITS",
    "BLOCK_SIZES",
    "FAST_SIZES",
    "SHRUNK",
    "SMALLEST_SCALE",
    "Blocks",
    "best_block_size",
    "block_levels",
    "pack_levels",
    "pack_rows",
    "plain_scales",
    "quantize_blocks",
]

BITS = (8, 4, 2)
BLOCK_SIZES = (16, 32, 64, 128, 256)
"""What ONNX Runtime has kernels for."""
FAST_SIZES = {8: BLOCK_SIZES, 4: BLOCK_SIZES, 2: (32, 64, 128)}
"""By bits: in other sizes a weight of two bits is made floats at each run, at 400 times the time at one position."""

SCALE_BYTES = 4
SMALLEST_SCALE = np.finfo(np.float32).tiny
CHUNK = 2**20
"""Values rounded at once: the search holds a few copies of them."""

SHRUNK = tuple(np.linspace(1.1, 0.65, 10))
"""Tried ranges of a block of four or two bits, as shares of its largest value."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A packed weight.

    ``values``: uint8 (outputs, blocks, bytes per block); ``scales``: float32 (outputs, blocks);
    ``inputs``: values of a row that are not filling.
    """

    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    bits: int
    inputs: int

    @property
    def block_size(self) -> int:
        """Values in a block."""
        return int(self.values.shape[-1]) * 8 // self.bits

    def floats(self) -> npt.NDArray[np.float32]:
        """Return the weight that the packed one stands for, float32 (outputs, inputs)."""
        levels, most = self.values, (1 << self.bits) - 1
        if self.bits < 8:
            parts = [levels >> shift & most for shift in range(0, 8, self.bits)]
            levels = np.stack(parts, axis=-1).reshape(*levels.shape[:2], -1)
        steps = levels.astype(np.float32) - (1 << (self.bits - 1))
        rows = (steps * self.scales[..., None]).reshape(len(steps), -1)
        return np.ascontiguousarray(rows[:, : self.inputs])

    def of_shape(self, shape: tuple[int, ...]) -> "Blocks":
        """Return it, where it is a weight of this shape, (outputs, inputs).

        Raises:
            ValueError: It is of another.
        """
        if (len(self.values), self.inputs) != shape:
            raise ValueError(f"blocks of {len(self.values)} x {self.inputs} for a weight {shape}")
        return self


def quantize_blocks(rows: npt.NDArray[np.floating[Any]], *, bits: int, block_size: int) -> Blocks:
    """Round a weight in blocks.

    Args:
        rows: float (outputs, inputs): the transpose of a weight [in, out].
        bits: 8, 4 or 2.
        block_size: One of `BLOCK_SIZES`.

    Returns:
        The packed weight. In eight bits each value is off by at most half a scale, by a whole one
        where it is the block's largest with the other sign; in four and two bits the scale of each block is the
        one with the least squared error of those tried.

    Raises:
        ValueError: A value is not finite.
    """
    step = max(1, CHUNK // max(1, rows.shape[1]))
    parts = ((start, rows[start : start + step]) for start in range(0, len(rows), step))
    return pack_rows(parts, *rows.shape, bits=bits, block_size=block_size)


def pack_rows(
    parts: Iterable[tuple[int, npt.NDArray[np.floating[Any]]]],
    outputs: int,
    inputs: int,
    *,
    bits: int,
    block_size: int,
) -> Blocks:
    """Do the same with a weight that is read in parts.

    Args:
        parts: Some rows each, with their first row.
        outputs: Rows of all parts.
        inputs: Values of a row.
        bits: 8, 4 or 2.
        block_size: One of `BLOCK_SIZES`.

    Raises:
        ValueError: A value is not finite.
    """
    count = -(-inputs // block_size)
    values = np.empty((outputs, count, block_size * bits // 8), np.uint8)
    scales = np.empty((outputs, count), np.float32)
    step = max(1, CHUNK // (count * block_size))
    for first, rows in parts:
        if not np.isfinite(rows).all():
            raise ValueError("a weight that is not finite cannot be quantized")
        for start in range(0, len(rows), step):
            taken = rows[start : start + step]
            part = np.zeros((len(taken), count * block_size), np.float32)
            part[:, :inputs] = taken
            blocks = part.reshape(-1, count, block_size)
            some = slice(first + start, first + start + len(taken))
            scales[some] = _scales(blocks, bits)
            values[some] = pack_levels(_levels(blocks, scales[some], bits), bits)
    return Blocks(values, scales, bits, inputs)


def best_block_size(inputs: int, *, bits: int, largest: int) -> int:
    """Return the block size, at most ``largest`` where that can be, that stores a row in the fewest bytes."""

    def row_bytes(size: int) -> int:
        count = -(-inputs // size)
        return count * (size * bits // 8 + SCALE_BYTES)

    known = FAST_SIZES[bits]
    sizes = [size for size in reversed(known) if size <= largest] or [known[0]]
    return min(sizes, key=row_bytes)  # the larger of two that take the same


def plain_scales(blocks: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    """Return the scales that give the largest value of each block the lowest level; the last axis is a block's."""
    high, low = blocks.max(axis=-1), blocks.min(axis=-1)
    return _usable(np.where(high > -low, high, low) / -(1 << (bits - 1)))


def _scales(blocks: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    plain = plain_scales(blocks, bits)
    if bits == 8:
        return plain
    best, least = plain, np.full(plain.shape, np.inf, np.float32)
    for share in SHRUNK:
        scales = _usable(plain * np.float32(share))
        levels = _levels(blocks, scales, bits)
        # The scale that fits these levels best: least squares.
        power = np.einsum("...i,...i", levels, levels)
        fitted = np.einsum("...i,...i", levels, blocks) / np.maximum(power, 1)
        scales = _usable(np.where(power > 0, fitted, scales))
        error = np.square(_levels(blocks, scales, bits) * scales[..., None] - blocks).sum(axis=-1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _usable(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Replace the scales of blocks of zeros and of denormals, which cannot be divided by.

    By the smallest one: the kernel takes the middle away in float, and a large scale would show what
    that leaves.
    """
    small = np.abs(scales) < SMALLEST_SCALE
    return np.where(small, SMALLEST_SCALE, scales).astype(np.float32)


def _levels(
    blocks: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], bits: int
) -> npt.NDArray[np.float32]:
    return block_levels(blocks, scales[..., None], bits)


def block_levels(
    values: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], bits: int
) -> npt.NDArray[np.float32]:
    """Round to whole steps, -128 to 127, -8 to 7 or -2 to 1; values and scales broadcast."""
    half = 1 << (bits - 1)
    levels: npt.NDArray[np.float32] = np.rint(values / scales).clip(-half, half - 1)
    return levels


def pack_levels(levels: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.uint8]:
    """Return levels as they are stored, uint8: (..., values) becomes (..., bytes)."""
    stored = (levels + (1 << (bits - 1))).astype(np.uint8)
    share = 8 // bits
    packed = stored[..., 0::share]
    for place in range(1, share):
        packed = packed | stored[..., place::share] << np.uint8(bits * place)
    return packed
