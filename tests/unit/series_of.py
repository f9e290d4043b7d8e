"""Tasks of series that a test computes."""

from typing import Any

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask

__all__ = ["autoregression", "forecast_of", "labels_of"]


def autoregression(
    weights: dict[int, float], rows: int, *, seed: int = 0, noise: float = 1.0
) -> Any:
    """Return a series whose rows are sums of earlier ones: {lag: weight}."""
    draw = np.random.default_rng(seed)
    values = np.zeros(rows + 100)
    for row in range(max(weights), len(values)):
        values[row] = sum(w * values[row - lag] for lag, w in weights.items())
        values[row] += noise * draw.normal()
    return values[100:]


def forecast_of(values: Any, *, context: int = 8, horizon: int = 1, **more: Any) -> SeriesTask:
    """Return the forecast of a single series, or of several: (series, rows)."""
    grid = np.atleast_2d(np.asarray(values, np.float64))
    flat = grid.reshape(-1, 1)
    names = tuple(f"s{number}" for number in range(len(grid))) if len(grid) > 1 else ()
    columns = Columns(
        names=("y",),
        values=flat,
        observed=np.isfinite(flat),
        edges=np.arange(len(grid) + 1) * grid.shape[1],
        series=names,
    )
    group = "shop" if names else None
    return SeriesTask(columns, horizon=horizon, context=context, group=group, **more)


def labels_of(
    values: Any,
    labels: list[str],
    *,
    context: int = 4,
    lengths: list[int] | None = None,
    **more: Any,
) -> LabelledSeriesTask:
    """Return the labels of rows; with ``lengths`` those of whole series of so many rows."""
    names = tuple(sorted(set(labels)))
    flat = np.asarray(values, np.float64).reshape(len(labels), -1)
    edges = None if lengths is None else np.concatenate([[0], np.cumsum(lengths)])
    series = () if lengths is None else tuple(f"s{number}" for number in range(len(lengths)))
    columns = Columns(
        names=tuple(f"x{number}" for number in range(flat.shape[1])),
        values=flat,
        observed=np.ones(flat.shape, bool),
        edges=edges,
        series=series,
        labels=names,
        codes=np.array([names.index(label) for label in labels], np.int32),
    )
    group = None if lengths is None else "utterance"
    return LabelledSeriesTask(columns, label="kind", context=context, group=group, **more)
