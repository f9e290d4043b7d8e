"""Sums that metrics are made from: they add up over batches, and over the processes of a run."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "IGNORED",
    "Metrics",
    "Tally",
    "class_metrics",
    "class_tally",
    "total",
    "value_metrics",
    "value_tally",
]

Array = npt.NDArray[Any]
Metrics = dict[str, float]
Tally = dict[str, Any]
"""Sums by name: numbers or arrays, added name by name."""

IGNORED = -100
"""Class of a position that is neither learned nor scored (what PyTorch's cross entropy skips)."""


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies of one kind; of none, an empty one."""
    summed: Tally = {}
    for tally in tallies:
        summed = {key: summed[key] + tally[key] for key in summed} if summed else tally
    return summed


def class_tally(outputs: Array, targets: Array) -> Tally:
    """Count right positions, and for sequences the rows without a wrong one of those that ask any.

    Args:
        outputs: Logits (..., classes).
        targets: Classes (...); `IGNORED` positions are left out.
    """
    kept = targets != IGNORED
    right = outputs.argmax(axis=-1) == targets
    tally: Tally = {"right": int((right & kept).sum()), "asked": int(kept.sum())}
    if targets.ndim > 1:
        rows = (right | ~kept).reshape(len(targets), -1).all(axis=-1)
        asking = kept.reshape(len(targets), -1).any(axis=-1)
        tally |= {"rows_right": int((rows & asking).sum()), "rows": int(asking.sum())}
    return tally


def class_metrics(tally: Tally) -> Metrics:
    """Return ``accuracy``, the share of right positions, and ``sequence_accuracy``, that of rows.

    Both are NaN where nothing is asked.
    """
    metrics = {"accuracy": _ratio(tally["right"], tally["asked"])}
    if "rows" in tally:
        metrics["sequence_accuracy"] = _ratio(tally["rows_right"], tally["rows"])
    return metrics


def value_tally(outputs: Array, targets: Array) -> Tally:
    """Add up squared and absolute errors where the target is not NaN."""
    error = outputs.astype(np.float64) - targets
    error = error[~np.isnan(targets)]
    return {
        "squared": float(np.square(error).sum()),
        "absolute": float(np.abs(error).sum()),
        "asked": error.size,
    }


def value_metrics(tally: Tally) -> Metrics:
    """Return the root mean square error ``rmse`` and the mean absolute error ``mae``.

    Both are NaN where nothing is asked.
    """
    return {
        "rmse": float(np.sqrt(_ratio(tally["squared"], tally["asked"]))),
        "mae": _ratio(tally["absolute"], tally["asked"]),
    }


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan
