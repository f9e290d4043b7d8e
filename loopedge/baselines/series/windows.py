"""The windows of a table as plain forecasts see them: all that came before, back to the last gap."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loopedge.baselines.attempts import JUDGED, Judged, judged_by_tallies
from loopedge.data.tables.columns import carry_forward
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.sample_tallies import sample_tallies
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array, Batch, Split

__all__ = ["Forecaster", "SeriesWindows", "evenly"]

Forecaster = Callable[[Array], Array]
"""Stops, int64 (windows,), to forecasts, float64 (windows, horizon, targets)."""

AT_ONCE = 128
"""Windows that are cut at once: a long context would make one array too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    stops: Array
    batch: Batch  # without inputs: a score takes none


class SeriesWindows:
    """What plain forecasts of a table are fitted, chosen and judged on.

    A missing value is the last one before it, as in `SeriesTask.baselines`.

    Args:
        task: Its training windows fit, its validation windows choose, its test windows judge.
        samples: Most windows of a split, as those of the models.

    Attributes:
        task: The task.
        values: float64 (table rows, columns).
        means: float64 (columns,): what stands in before the first value of a piece.
        spread: float64 (columns,): deviation of the training rows.
        training: int64: the stops of all training windows.
    """

    def __init__(self, task: SeriesTask, samples: int) -> None:
        self.task = task
        scaling = task.scaling()
        assert scaling is not None
        self.means: Array = scaling.input_mean
        self.spread: Array = task.column_deviation
        self.values = carry_forward(task.columns, len(task.columns.names), self.means)
        self.training: Array = task.stops["train"]
        self._splits = {split: self._judged(split, samples) for split in JUDGED}

    def _judged(self, split: Split, samples: int) -> _Split:
        stops = self.task.evaluated_stops(split, samples)
        targets = self.targets(stops)
        units = self.task.mase_scale.values[self.task.columns.series_of(stops - 1)]
        nothing = np.empty((len(stops), 0))
        return _Split(stops=stops, batch=Batch(inputs=nothing, targets=targets, units=units))

    @property
    def chosen_on(self) -> Array:
        """The stops of the validation windows."""
        return self._splits["validation"].stops

    def targets(self, stops: Array) -> Array:
        """Return what followed: float64 (windows, horizon, targets), NaN where nothing was observed."""
        columns, count = self.task.columns, self.task.targets
        rows = stops[:, None] + np.arange(self.task.horizon)
        return np.where(columns.observed[rows, :count], columns.values[rows, :count], np.nan)

    def lags(self, stops: Array, count: int, columns: int) -> Array:
        """Return the last rows before some stops, the latest first: float64 (windows, count, columns).

        Where a piece of the table begins later, its first row stands in.
        """
        rows = self.rows_before(stops, count)
        return self.values[np.maximum(rows, self._starts(stops)[:, None]), :columns]

    def rows_before(self, stops: Array, count: int) -> Array:
        """Return the numbers of the rows before some stops, the latest first; they may lie in an earlier piece."""
        rows: Array = stops[:, None] - 1 - np.arange(count)
        return rows

    def within(self, stops: Array, count: int) -> Array:
        """Return which of `rows_before` stand in the piece of their stop: bool (windows, count)."""
        inside: Array = self.rows_before(stops, count) >= self._starts(stops)[:, None]
        return inside

    def history(self, stops: Array) -> Array:
        """Return how many rows of its piece stand before each stop."""
        rows: Array = stops - self._starts(stops)
        return rows

    def _starts(self, stops: Array) -> Array:
        return self.task.columns.piece_starts(stops - 1)

    def by_chunks(self, forecast: Forecaster, stops: Array) -> Array:
        """Forecast `AT_ONCE` windows at a time."""
        parts = [
            forecast(stops[first : first + AT_ONCE]) for first in range(0, len(stops), AT_ONCE)
        ]
        return np.concatenate(parts)

    def loss(self, outputs: Array) -> float:
        """Return the metric that decides on the validation windows, lower is better; infinity where it is none.

        Args:
            outputs: (windows, horizon, targets) of the windows of `chosen_on`.
        """
        task = self.task
        batch = self._splits["validation"].batch
        value = metric_value(task.metrics(task.tally_batch(outputs, batch)), task.metric)
        value = -value if task.higher_is_better else value
        return value if np.isfinite(value) else np.inf

    def judge(self, forecast: Forecaster, about: str) -> Judged:
        """Score forecasts of the validation and the test windows, sample by sample."""
        tallies = {
            split: sample_tallies(self.task, self.by_chunks(forecast, part.stops), part.batch)
            for split, part in self._splits.items()
        }
        return judged_by_tallies(self.task, about, tallies)


def evenly(places: Array, most: int) -> Array:
    """Return at most ``most`` of some places, evenly spaced."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]
