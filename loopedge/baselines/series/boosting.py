"""Gradient boosting on lags: one model a target for all steps, the step among its features."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopedge.baselines.attempts import Best, CannotFitError, Judged
from loopedge.baselines.series.levels import Level, Levelled
from loopedge.baselines.series.seasons import places_of_rows, seasons_of
from loopedge.baselines.series.windows import SeriesWindows
from loopedge.tasks.task import Array

__all__ = ["boosting_on_lags"]

SEED = 0
MOST_ROWS, MOST_OF_ALL, LEAST_ROWS = 8_000, 32_000, 1_000
"""Training rows of a model, of the models of all targets, and what each has at least: a window and a step of its horizon."""
MOST_LAGS = 28
MOST_FEATURES = 64
MOST_FITS = 8
"""Of all targets and settings: with many targets fewer settings are tried, at least one."""
TREES = (50, 100, 200)
MOST_TREES = 1_600
"""Of the models of all targets: with many targets fewer trees are grown, the least of `TREES` at least."""
LEAVES = (7, 31)
TRIED: tuple[Level, ...] = ("last value", "training mean")
RATE = 0.05
LEAST_LEAF = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    level: Level
    leaves: int
    trees: int


class _Fitting:
    """Features of windows and steps."""

    def __init__(self, windows: SeriesWindows) -> None:
        self.windows, self.task = windows, windows.task
        self.places = places_of_rows(windows.task)
        columns = len(windows.task.columns.names)
        most = max(1, min(MOST_LAGS, MOST_FEATURES // columns))
        self.lags = min(windows.task.context, most)
        self.periods = [season.period for season in seasons_of(windows.task)]

    def rows(self, stops: Array, steps: Array, levelled: Levelled) -> Array:
        """Return the features of windows at one step each: (windows, features)."""
        lags = levelled.lags
        summary = [lags.mean(axis=1), lags.std(axis=1)]
        ahead = self.places[stops - 1] + 1 + steps
        parts = [lags.reshape(len(stops), -1), *summary, steps[:, None].astype(np.float64)]
        for period in self.periods:
            angle = 2 * np.pi * ahead / period
            parts += [np.cos(angle)[:, None], np.sin(angle)[:, None]]
            parts.append(self._season_before(stops, steps, round(period), levelled))
        return np.concatenate(parts, axis=1)

    def _season_before(self, stops: Array, steps: Array, season: int, levelled: Levelled) -> Array:
        """Return the targets a season before the step, NaN where the piece begins later."""
        windows, count = self.windows, self.task.targets
        rows = stops + steps - season * (steps // season + 1)
        reached = windows.history(stops) >= season
        values = windows.values[np.where(reached, rows, stops - 1), :count]
        values = (values - levelled.level[:, :count]) / levelled.size[:, :count]
        return np.where(reached[:, None], values, np.nan)

    def training(self, level: Level) -> tuple[Array, Array]:
        """Return features, and answers (rows, targets), of drawn windows and steps."""
        windows, horizon = self.windows, self.task.horizon
        pairs = len(windows.training) * horizon
        most = min(MOST_ROWS, max(LEAST_ROWS, MOST_OF_ALL // self.task.targets))
        chosen = np.arange(pairs)
        if pairs > most:
            chosen = np.sort(np.random.default_rng(SEED).choice(pairs, most, replace=False))
        stops, steps = windows.training[chosen // horizon], chosen % horizon
        levelled = Levelled.of(windows, stops, self.lags, level)
        answers = levelled.turn(self._answers(stops, steps)[:, None])[:, 0]
        return self.rows(stops, steps, levelled), answers

    def _answers(self, stops: Array, steps: Array) -> Array:
        columns, count = self.task.columns, self.task.targets
        rows = stops + steps
        return np.where(columns.observed[rows, :count], columns.values[rows, :count], np.nan)

    def forecasts(
        self, models: list[Any], stops: Array, level: Level, trees: tuple[int, ...]
    ) -> Array:
        """Return forecasts after some numbers of trees: (numbers, windows, horizon, targets)."""
        task = self.task
        horizon = task.horizon
        pairs = np.repeat(stops, horizon), np.tile(np.arange(horizon), len(stops))
        levelled = Levelled.of(self.windows, pairs[0], self.lags, level)
        features = self.rows(*pairs, levelled)
        found = []
        for model in models:
            stages = itertools.islice(model.staged_predict(features), max(trees))
            kept = [answer for tree, answer in enumerate(stages, 1) if tree in trees]
            found.append(np.stack(kept))
        answers = np.stack(found, axis=-1)  # (numbers, windows * horizon, targets)
        back: Array = np.stack([levelled.back(answer[:, None])[:, 0] for answer in answers])
        return back.reshape(len(trees), len(stops), horizon, task.targets)


def boosting_on_lags(windows: SeriesWindows) -> Judged:
    """Fit trees for each level and number of leaves; the validation windows choose, and the number of trees too.

    Raises:
        CannotFitError: There are too few training rows, or a target has none.
    """
    fitting = _Fitting(windows)
    best: Best[tuple[_Setting, list[Any]]] = Best()
    numbers = _trees(windows.task.targets)
    for level, leaves in _tried(windows):
        models = _fit(*fitting.training(level), leaves, numbers[-1])
        forecasts = _chunked(fitting, models, windows.chosen_on, level, numbers)
        for trees, outputs in zip(numbers, forecasts, strict=True):
            setting = _Setting(level=level, leaves=leaves, trees=trees)
            best.offer(windows.loss(outputs), (setting, models))
    setting, models = best.candidate

    def forecast(stops: Array) -> Array:
        found: Array = fitting.forecasts(models, stops, setting.level, (setting.trees,))[0]
        return found

    lags = f"{fitting.lags} {'lag' if fitting.lags == 1 else 'lags'}"
    about = f"{lags}, {setting.trees} trees of {setting.leaves} leaves, measured from the {setting.level}"
    return windows.judge(forecast, about)


def _tried(windows: SeriesWindows) -> Iterator[tuple[Level, int]]:
    settings = itertools.product(TRIED, LEAVES)
    return itertools.islice(settings, max(1, MOST_FITS // windows.task.targets))


def _trees(targets: int) -> tuple[int, ...]:
    """Return the numbers of trees that are tried, ascending."""
    return tuple(trees for trees in TREES if trees * targets <= MOST_TREES) or TREES[:1]


def _chunked(
    fitting: _Fitting, models: list[Any], stops: Array, level: Level, trees: tuple[int, ...]
) -> Array:
    parts = [
        fitting.forecasts(models, stops[first : first + 128], level, trees)
        for first in range(0, len(stops), 128)
    ]
    return np.concatenate(parts, axis=1)


def _fit(features: Array, answers: Array, leaves: int, trees: int) -> list[Any]:
    """Return a model of each target."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    models = []
    for answer in answers.T:
        asked = ~np.isnan(answer)
        if asked.sum() < 2 * LEAST_LEAF:
            raise CannotFitError(
                f"{int(asked.sum())} training rows, at least {2 * LEAST_LEAF} are needed"
            )
        model = HistGradientBoostingRegressor(
            learning_rate=RATE,
            max_iter=trees,
            max_leaf_nodes=leaves,
            min_samples_leaf=LEAST_LEAF,
            early_stopping=False,
            random_state=SEED,
        )
        models.append(model.fit(features[asked], answer[asked]))
    return models
