"""Which place in the data calibrates, which chooses and which judges."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = [
    "HELD_OUT",
    "Taken",
    "chooses",
    "even_blocks",
    "judges",
    "left_to_calibrate",
    "odd_blocks",
]

Places = npt.NDArray[np.int64]
Taken = Callable[[Places, int], npt.NDArray[np.bool_]]
"""Takes the places of samples in a part and how many the part has; says which of them are taken."""

HELD_OUT = 4
"""Every fourth sample judges and does not calibrate."""
CHOOSING = 1
"""Where something is chosen, those that leave this rest when divided by `HELD_OUT` choose, and do not calibrate."""
BLOCK = 32
"""Neighbouring windows of a series overlap: so many stay together."""


def judges(places: Places, total: int) -> npt.NDArray[np.bool_]:
    """Take every fourth sample; of fewer than four the last."""
    found = places % HELD_OUT == HELD_OUT - 1 if total >= HELD_OUT else places == total - 1
    return np.asarray(found, np.bool_)


def chooses(places: Places, total: int) -> npt.NDArray[np.bool_]:
    """Take another fourth; of fewer than four none."""
    found = places % HELD_OUT == CHOOSING if total >= HELD_OUT else np.zeros(len(places))
    return np.asarray(found, np.bool_)


def left_to_calibrate(some_choose: bool) -> Taken:
    """Return which samples calibrate where all come from one part: those that neither judge nor choose."""

    def taken(places: Places, total: int) -> npt.NDArray[np.bool_]:
        left = ~judges(places, total) if total > 1 else np.ones(len(places), np.bool_)
        return left & ~chooses(places, total) if some_choose else left

    return taken


def even_blocks(places: Places, total: int) -> npt.NDArray[np.bool_]:
    """Take every second block of a part, beginning with the first."""
    block = max(1, min(BLOCK, -(-total // 2)))
    return np.asarray(places // block % 2 == 0, np.bool_)


def odd_blocks(places: Places, total: int) -> npt.NDArray[np.bool_]:
    """Take the blocks between."""
    return ~even_blocks(places, total)
