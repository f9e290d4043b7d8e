"""What a mask of attention lets a query read, found by its values at several lengths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Causal", "Refused", "classify"]

Array = npt.NDArray[Any]

HIDDEN = -1e4
"""An additive mask hides a key by this or less: float16 has no larger numbers than 65504, transformers takes its least."""


@dataclass(frozen=True, slots=True)
class Causal:
    """Query i reads keys j <= i, with a window those with i - window < j."""

    window: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The mask is another."""

    reason: str


def classify(masks: Mapping[int, Array]) -> Causal | Refused:
    """Tell what masks of texts of several lengths let a query read.

    Args:
        masks: By length, bool (True: read) or float (added to the scores), broadcast to (..., length, length).

    Returns:
        ``Causal``, or why it is not.
    """
    windows: set[int | None] = set()
    for length, mask in masks.items():
        seen = _seen(mask)
        if isinstance(seen, Refused):
            return seen
        if seen.ndim < 2 or seen.shape[-1] != length or seen.shape[-2] not in {1, length}:
            return Refused(f"it has shape {mask.shape} at {length} positions")
        rows = np.broadcast_to(seen, (*seen.shape[:-2], length, length)).reshape(-1, length, length)
        if (rows != rows[0]).any():
            return Refused("it differs from head to head")
        distance = np.subtract.outer(
            *[np.arange(length, dtype=np.int32)] * 2
        )  # of a long mask it is the largest
        if (rows[0] & (distance < 0)).any():
            return Refused("queries read positions behind their own")
        widest = int(distance[rows[0]].max(initial=-1)) + 1
        if (rows[0] != ((distance >= 0) & (distance < widest))).any():
            return Refused(
                "queries do not read all positions up to their own, nor a window of them"
            )
        windows.add(None if widest == length else widest)
    narrow = windows - {None}
    if len(narrow) > 1:
        return Refused(f"its window changes with the length: {sorted(map(str, windows))}")
    window = next(iter(narrow), None)
    if window is not None and any(length > window for length, m in masks.items() if _whole(m)):
        return Refused("its window is there at some lengths, and not at others")
    return Causal(window)


def _whole(mask: Array) -> bool:
    """Tell whether the last query reads the first position."""
    seen = _seen(mask)
    return isinstance(seen, np.ndarray) and bool(seen[..., -1, 0].all())


def _seen(mask: Array) -> Array | Refused:
    if mask.dtype == np.bool_:
        return mask
    if not np.issubdtype(mask.dtype, np.floating):
        return Refused(f"its type is {mask.dtype}")
    hidden = mask <= HIDDEN
    if (mask[~hidden] != 0).any():
        return Refused("it adds something to the scores besides hiding positions")
    return ~hidden
