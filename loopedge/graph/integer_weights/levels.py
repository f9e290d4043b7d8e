"""The levels of a rounded weight: whole numbers that its scales multiply, whatever form they are packed in."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.graph.integer_weights.blocks import Blocks, pack_levels
from loopedge.graph.integer_weights.rounded_weights import Channels, RoundedWeight

__all__ = ["bounds_of", "levels_of", "steps_of", "with_levels"]

Array = npt.NDArray[Any]


def steps_of(rounded: RoundedWeight) -> npt.NDArray[np.float32]:
    """Return what a level stands for, float32 (outputs, inputs): the scale of its block or channel."""
    if isinstance(rounded, Channels):
        return np.broadcast_to(rounded.scales[:, None], rounded.values.shape)
    spread = np.repeat(rounded.scales, rounded.block_size, axis=1)
    return np.ascontiguousarray(spread[:, : rounded.inputs])


def levels_of(rounded: RoundedWeight) -> npt.NDArray[np.float32]:
    """Return the levels as whole numbers, float32 (outputs, inputs): the weight is levels times steps."""
    if isinstance(rounded, Channels):
        return rounded.values.astype(np.float32)
    levels: npt.NDArray[np.float32] = np.rint(rounded.floats() / steps_of(rounded))
    return levels


def bounds_of(rounded: RoundedWeight, limit: int) -> tuple[int, int]:
    """Return the least and the greatest level.

    Args:
        rounded: The weight.
        limit: Largest magnitude of a level where the weight has one scale per channel.
    """
    if isinstance(rounded, Channels):
        return -limit, limit
    half = 1 << (rounded.bits - 1)
    return -half, half - 1


def with_levels(rounded: RoundedWeight, levels: Array) -> RoundedWeight:
    """Return a weight of the same scales and form with other levels.

    Args:
        rounded: The weight.
        levels: Whole numbers (outputs, inputs), within its bounds.
    """
    if isinstance(rounded, Channels):
        return Channels(np.ascontiguousarray(levels, np.int8), rounded.scales)
    outputs, count = rounded.scales.shape
    filled = np.zeros((outputs, count * rounded.block_size), np.float32)
    filled[:, : rounded.inputs] = levels
    packed = pack_levels(filled.reshape(outputs, count, -1), rounded.bits)
    return Blocks(packed, rounded.scales, rounded.bits, rounded.inputs)
