"""Climatology plus autoregression: the usual course of the season, and how fast what is left of it fades."""

from dataclasses import dataclass

import numpy as np

from loopedge.baselines.attempts import Best, CannotFitError, Judged
from loopedge.baselines.series.harmonics import Climatology, Shape, TrainingRows, shapes
from loopedge.baselines.series.ridge import lag_counts
from loopedge.baselines.series.seasons import places_of_rows, seasons_of
from loopedge.baselines.series.windows import SeriesWindows, evenly
from loopedge.tasks.task import Array

__all__ = ["climatology_and_autoregression"]

MOST_WINDOWS = 8_000
"""Training rows that the autoregression is fitted on."""
MOST_ORDER = 48
MOST_NUMBERS = 20_000_000
"""Of the products that all series together are fitted by: with very many series fewer harmonics are tried."""
RIDGE = 1e-8
MARGIN = 1e-3
"""Share of the validation loss that one more season, harmonic or lag has to save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A climatology, and what each of the last residuals adds to each step: (order, horizon, targets)."""

    climatology: Climatology
    weights: Array


class _Fitting:
    """What all climatologies are fitted and chosen on."""

    def __init__(self, windows: SeriesWindows) -> None:
        self.windows = windows
        self.task = windows.task
        self.places = places_of_rows(windows.task)
        self.rows = TrainingRows.of(windows, self.places)
        self.order = min(self.task.context, MOST_ORDER)
        self.stops = self._training_stops()

    def _training_stops(self) -> Array:
        """Return training rows behind a row of their piece: what the autoregression is fitted on."""
        task = self.task
        columns = task.columns
        parts = []
        for (first, _), bounds in zip(columns.spans(), task.bounds, strict=True):
            rows = np.arange(first + 1, first + bounds["train"].end)
            parts.append(rows[columns.piece_starts(rows) < rows])
        stops = np.concatenate(parts)
        usable = columns.observed[stops, : task.targets].any(axis=1)
        if task.missing != "indicator":  # else what was interpolated knows the row itself
            usable &= columns.observed[stops - 1].all(axis=1)
        return evenly(stops[usable], MOST_WINDOWS)

    def residuals(self, climatology: Climatology, stops: Array, count: int) -> Array:
        """Return what is left before some stops, the latest first, 0 where a piece begins later.

        float64 (windows, count, targets).
        """
        windows = self.windows
        inside = windows.within(stops, count)
        rows = np.where(inside, windows.rows_before(stops, count), stops[:, None] - 1)
        series = np.broadcast_to(self.task.columns.series_of(stops - 1)[:, None], rows.shape)
        left = windows.values[rows, : self.task.targets] - climatology.at(series, self.places[rows])
        return np.where(inside[:, :, None], left, 0.0)

    def fit(self, shape: Shape) -> list[_Model]:
        """Return a model of each order."""
        task, columns = self.task, self.task.columns
        climatology = Climatology.fit(shape, self.rows, len(columns.bounds) - 1)
        lags = self.residuals(climatology, self.stops, self.order)
        series = columns.series_of(self.stops)
        now = self.windows.values[self.stops, : task.targets]
        now = now - climatology.at(series, self.places[self.stops])
        size = np.sqrt(np.mean(np.square(lags[:, :1]), axis=(0, 1)))
        spread = _by_series(lags[:, 0], series, len(columns.bounds) - 1, size)[series]
        asked = columns.observed[self.stops, : task.targets]
        grams = []
        for target in range(task.targets):
            kept = asked[:, target]
            scaled = lags[kept, :, target] / spread[kept, target, None]
            answer = now[kept, target] / spread[kept, target]
            grams.append((scaled.T @ scaled, scaled.T @ answer))
        models = []
        for order in lag_counts(self.order):
            weights = [_steps(*gram, order, task.horizon) for gram in grams]
            models.append(_Model(climatology=climatology, weights=np.stack(weights, axis=-1)))
        return models

    def forecast(self, model: _Model, stops: Array) -> Array:
        """Return the climatology ahead, and what the last residuals add to it."""
        left = self.residuals(model.climatology, stops, len(model.weights))
        added = np.einsum("npt,pht->nht", left, model.weights)
        ahead = self.places[stops - 1][:, None] + np.arange(1, self.task.horizon + 1)
        series = np.broadcast_to(self.task.columns.series_of(stops - 1)[:, None], ahead.shape)
        return np.asarray(model.climatology.at(series, ahead) + added)


def climatology_and_autoregression(windows: SeriesWindows) -> Judged:
    """Fit every shape of a climatology and every order; the validation windows choose.

    Raises:
        CannotFitError: No two training rows follow each other.
    """
    fitting = _Fitting(windows)
    if not len(fitting.stops):
        raise CannotFitError("no two observed training rows follow each other")
    seasons = seasons_of(windows.task)
    spans = [
        np.ptp(fitting.places[first : first + bounds["train"].end])
        for (first, _), bounds in zip(
            windows.task.columns.spans(), windows.task.bounds, strict=True
        )
        if bounds["train"].end
    ]
    best: Best[_Model] = Best(MARGIN)
    series = len(windows.task.columns.bounds) - 1
    for shape in shapes([season.period for season in seasons], float(max(spans)) + 1):
        if shape.periods and series * shape.size**2 > MOST_NUMBERS:
            continue
        for model in fitting.fit(shape):
            best.offer(windows.loss(fitting.forecast(model, windows.chosen_on)), model)
    chosen = best.candidate
    return windows.judge(lambda stops: fitting.forecast(chosen, stops), _about(windows, chosen))


def _about(windows: SeriesWindows, model: _Model) -> str:
    task, shape = windows.task, model.climatology.shape
    found = None if task.given_season is not None else task.season
    named = {season.period: season.text(found) for season in seasons_of(task)}
    parts = [f"{named[period]}" for period in shape.periods] or ["no season"]
    if shape.periods:
        waves = "harmonic" if shape.harmonics == 1 else "harmonics"
        parts.append(f"{shape.harmonics} {waves}")
    if shape.trend:
        parts.append("linear trend")
    order = len(model.weights)
    return ", ".join([*parts, f"autoregression of order {order}"])


def _by_series(values: Array, series: Array, count: int, otherwise: Array) -> Array:
    """Return the root mean square of each series, (count, targets); ``otherwise`` where it is 0."""
    sums = np.stack(
        [np.bincount(series, np.square(column), minlength=count) for column in values.T], axis=-1
    )
    counts = np.bincount(series, minlength=count)[:, None]
    found = np.sqrt(sums / np.maximum(1, counts))
    usual = np.where(otherwise > 0, otherwise, 1.0)
    return np.where(found > 0, found, usual)


def _steps(gram: Array, right: Array, order: int, horizon: int) -> Array:
    """Return what each of the last residuals adds to each step: (order, horizon).

    One step is a least-squares autoregression; those behind it take its own forecasts as residuals.
    """
    inner = gram[:order, :order]
    inner = inner + RIDGE * max(float(np.trace(inner)), 1e-300) * np.eye(order)
    weights = np.linalg.solve(inner, right[:order])
    state = np.eye(order)  # (lag, residual): each lag as a sum of the last residuals
    found = np.empty((order, horizon))
    for step in range(horizon):
        ahead = weights @ state
        found[:, step] = ahead
        state = np.vstack([ahead, state[:-1]])
    return found
