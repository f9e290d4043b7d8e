"""Sums that metrics are made from: they add up over batches, and over the processes of a run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "IGNORED",
    "Metrics",
    "Tally",
    "class_metrics",
    "class_tally",
    "forecast_metrics",
    "forecast_tally",
    "metric_value",
    "total",
    "unit_tally",
    "value_metrics",
    "value_tally",
]

Array = npt.NDArray[Any]
Metrics = dict[str, float | None]
"""Scores by name. None: the score is undefined there, as an error in units of a scale where nothing has one."""
Tally = dict[str, Any]
"""Sums by name: numbers or arrays, added name by name."""

IGNORED = -100
"""Class of a position that is neither learned nor scored (what PyTorch's cross entropy skips)."""


def metric_value(metrics: Mapping[str, float | None], name: str) -> float:
    """Return a metric as a number to compute with: NaN where it is undefined or not there."""
    value = metrics.get(name)
    return math.nan if value is None else value


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
    metrics: Metrics = {"accuracy": _ratio(tally["right"], tally["asked"])}
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


def forecast_tally(outputs: Array, targets: Array) -> Tally:
    """Add up squared and absolute errors of each target of forecasts, where it is not NaN.

    Args:
        outputs: (batch, horizon, targets), as ``targets``.
        targets: NaN where nothing is asked.
    """
    error, asked = _errors(outputs, targets)
    return {
        "squared": np.square(error).sum(axis=(0, 1)),
        "absolute": np.abs(error).sum(axis=(0, 1)),
        "asked": asked.sum(axis=(0, 1)),
    }


def unit_tally(outputs: Array, targets: Array, units: Array | None) -> Tally:
    """Add up absolute errors of forecasts, each divided by the unit of its own window and target.

    Args:
        outputs: (batch, horizon, targets), as ``targets``.
        targets: NaN where nothing is asked.
        units: float64 (batch, targets), NaN where there is none: its errors are left out. None: nothing has one.
    """
    if units is None:
        return {}
    error, asked = _errors(outputs, targets)
    known = np.isfinite(units)[:, None, :] & asked
    scaled = np.abs(error) / np.where(np.isfinite(units), units, 1.0)[:, None, :]
    return {
        "in_units": np.where(known, scaled, 0.0).sum(axis=(0, 1)),
        "with_units": known.sum(axis=(0, 1)),
    }


def forecast_metrics(tally: Tally, names: Sequence[str], scale: Array) -> Metrics:
    """Return ``rmse``, ``mae`` and ``mase`` of forecasts, None where nothing was asked or nothing has a unit.

    Of several targets ``scaled_rmse`` and ``mase`` are over all, ``rmse.NAME``, ``mae.NAME`` and ``mase.NAME`` of each.

    Args:
        tally: Sums of `forecast_tally`, with those of `unit_tally` for ``mase``.
        names: Of the targets.
        scale: (targets,): what squared errors of several targets are divided by before they are averaged.
    """
    squared, asked = tally["squared"], tally["asked"]
    each = {"rmse": _roots(_means(squared, asked)), "mae": _means(tally["absolute"], asked)}
    if "in_units" in tally:
        each["mase"] = _means(tally["in_units"], tally["with_units"])
    if len(names) == 1:
        return {name: values[0] for name, values in each.items()}
    scaled = squared / np.square(scale.astype(np.float64))
    over_all: Metrics = {"scaled_rmse": _roots(_means(scaled.sum(), asked.sum()))[0]}
    if "mase" in each:
        over_all["mase"] = _means(tally["in_units"].sum(), tally["with_units"].sum())[0]
    return over_all | {
        f"{metric}.{name}": value
        for metric, values in each.items()
        for name, value in zip(names, values, strict=True)
    }


def _errors(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return float64 errors, 0 where nothing is asked, and where something is."""
    asked = ~np.isnan(targets)
    return np.where(asked, outputs.astype(np.float64) - targets, 0.0), asked


def _means(sums: Array, counts: Array) -> list[float | None]:
    """Return the mean of each; None where nothing was counted."""
    pairs = zip(np.ravel(sums).tolist(), np.ravel(counts).tolist(), strict=True)
    return [part / count if count else None for part, count in pairs]


def _roots(values: list[float | None]) -> list[float | None]:
    return [None if value is None else math.sqrt(value) for value in values]


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan
