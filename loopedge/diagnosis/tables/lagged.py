"""Samples of windows as a table of lags: what plain regressions are fitted on."""

from dataclasses import dataclass

import numpy as np

from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array, Split

__all__ = ["Lagged", "horizon_steps", "lagged"]

MOST_TARGETS = 6
"""Targets, or classes, that regressions are fitted to; of more the first ones."""
LEAST_SPREAD = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagged:
    """Windows and what is asked of them, each column in units of its training deviation.

    Args:
        inputs: float64 (samples, lags, columns), the oldest first; 0, the mean, where nothing was observed.
        targets: float64 (samples, outputs): forecast steps target by target, or one column for each class.
        last: float64 (samples, outputs): the last value of the same target; None for labels.
        steps: Of each output, from 1; 0 for labels.
    """

    inputs: Array
    targets: Array
    last: Array | None
    steps: tuple[int, ...]

    def within(self, lags: int) -> Array:
        """Return the latest ``lags`` rows as features: (samples, lags x columns)."""
        return self.inputs[:, self.inputs.shape[1] - lags :].reshape(len(self.inputs), -1)


def horizon_steps(horizon: int, targets: int) -> tuple[int, ...]:
    """Return the forecast steps that are looked at: the first, the last and the middle one where they are few."""
    count = 3 if targets == 1 else 2 if targets <= 3 else 1
    steps = np.linspace(1, horizon, count) if count > 1 else np.array([horizon])
    return tuple(dict.fromkeys(round(step) for step in steps.tolist()))


def lagged(
    task: SeriesTask | LabelledSeriesTask, split: Split, *, lags: int, most: int, seed: int
) -> Lagged:
    """Return windows of a split, drawn at random where there are more than ``most``.

    They are drawn, not spaced evenly: every 24th window of hourly rows would be of one hour of the day.

    Args:
        task: Windows of one or several series.
        split: Which part.
        lags: Table rows of a window, whatever the task's own context is.
        most: Samples.
        seed: Of the drawing.
    """
    stops = task.stops[split]
    kept = np.arange(len(stops))
    if len(stops) > most:
        kept = np.sort(np.random.default_rng(seed).choice(len(stops), most, replace=False))
    stops = stops[kept]
    columns = task.columns
    scaling = task.scaling()
    mean = np.zeros(len(columns.names)) if scaling is None else scaling.input_mean
    deviation = np.where(task.column_deviation > LEAST_SPREAD, task.column_deviation, 1.0)
    windows, there = columns.windows(stops, lags, mean)
    inputs = (windows - mean) / deviation
    inputs = np.where(there[:, :, None] & np.isfinite(inputs), inputs, 0.0)
    if isinstance(task, SeriesTask):
        return _forecasts(task, stops, inputs, mean, deviation)
    classes = min(MOST_TARGETS, len(task.classes))
    one_hot = (_labels(task, split)[kept][:, None] == np.arange(classes)).astype(np.float64)
    return Lagged(inputs=inputs, targets=one_hot, last=None, steps=(0,) * classes)


def _forecasts(
    task: SeriesTask, stops: Array, inputs: Array, mean: Array, deviation: Array
) -> Lagged:
    targets = min(task.targets, MOST_TARGETS)
    steps = horizon_steps(task.horizon, targets)
    rows = stops[:, None] + np.array(steps) - 1
    values = task.columns.values[:, :targets][rows]
    wanted = (values - mean[:targets]) / deviation[:targets]  # (samples, steps, targets)
    wanted = np.where(task.columns.observed[:, :targets][rows], wanted, np.nan)
    wanted = wanted.reshape(len(stops), -1)
    asked = np.isfinite(wanted).all(axis=1)
    last = np.tile(inputs[:, -1, :targets], (1, len(steps)))
    return Lagged(
        inputs=inputs[asked],
        targets=wanted[asked],
        last=last[asked],
        steps=tuple(step for step in steps for _ in range(targets)),
    )


def _labels(task: LabelledSeriesTask, split: Split) -> Array:
    count = len(task.stops[split])
    return np.concatenate([batch.targets for batch in task.evaluation(split, 1024, count)])
