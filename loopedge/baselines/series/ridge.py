"""Ridge regression on lags: every step of the horizon and every target straight from the last rows."""

import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np

from loopedge.baselines.attempts import Best, Judged
from loopedge.baselines.series.levels import LEVELS, Level, Levelled
from loopedge.baselines.series.windows import SeriesWindows, evenly
from loopedge.tasks.task import Array

__all__ = ["lag_counts", "ridge_on_lags"]

PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
"""Of standardized features, per training window."""
MOST_FEATURES = 1024
MOST_NUMBERS = 8_000_000
"""Features times training windows: 64 MB."""
MOST_WINDOWS = 20_000
MOST_WORK = 5e10
"""Multiplications of all solutions, where targets are missing: each pattern of them takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    lags: int
    level: Level
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """Weights of standardized lags, (features, horizon * targets), and their intercepts."""

    setting: _Setting
    middle: Array
    scale: Array
    weights: Array
    intercepts: Array

    def forecast(self, windows: SeriesWindows, stops: Array) -> Array:
        task, setting = windows.task, self.setting
        levelled = Levelled.of(windows, stops, setting.lags, setting.level)
        features = (levelled.lags.reshape(len(stops), -1) - self.middle) / self.scale
        answers = features @ self.weights + self.intercepts
        return levelled.back(answers.reshape(len(stops), task.horizon, task.targets))


def ridge_on_lags(windows: SeriesWindows) -> Judged:
    """Fit weights for each number of lags, level and penalty; the validation windows choose.

    Raises:
        CannotFitError: Too few training windows have targets.
    """
    best: Best[_Fitted] = Best()
    columns = len(windows.task.columns.names)
    counts = [
        count
        for count in lag_counts(windows.task.context)
        if count == 1 or count * columns <= MOST_FEATURES
    ]
    for count, level in itertools.product(counts, LEVELS):
        for fitted in _fits(windows, count, level):
            outputs = windows.by_chunks(partial(fitted.forecast, windows), windows.chosen_on)
            best.offer(windows.loss(outputs), fitted)
    chosen = best.candidate
    setting = chosen.setting
    lags = f"{setting.lags} {'lag' if setting.lags == 1 else 'lags'}"
    about = f"{lags}, penalty {setting.penalty:g}, measured from the {setting.level}"
    return windows.judge(partial(chosen.forecast, windows), about)


def lag_counts(context: int) -> list[int]:
    """Return the numbers of lags that are tried: up to the context, in steps that grow."""
    known = (1, 2, 3, 5, 7, 10, 14, 21, 28, 48, 72, 96, 144, 192, 288, 512)
    return [count for count in known if count < context] + [context]


def _fits(windows: SeriesWindows, count: int, level: Level) -> list[_Fitted]:
    """Return the weights of all penalties."""
    columns = len(windows.task.columns.names)
    most = min(MOST_WINDOWS, MOST_NUMBERS // (count * columns))
    stops = evenly(windows.training, max(most, 2))
    levelled = Levelled.of(windows, stops, count, level)
    features = levelled.lags.reshape(len(stops), -1)
    answers = levelled.turn(windows.targets(stops)).reshape(len(stops), -1)
    middle, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12 * (1.0 + np.abs(middle)), scale, 1.0)
    features = (features - middle) / scale
    weights = _solve(features, answers)
    return [
        _Fitted(
            setting=_Setting(lags=count, level=level, penalty=penalty),
            middle=middle,
            scale=scale,
            weights=weights[place, :-1],
            intercepts=weights[place, -1],
        )
        for place, penalty in enumerate(PENALTIES if len(weights) else ())
    ]


def _solve(features: Array, answers: Array) -> Array:
    """Return the weights and the intercept of each penalty: (penalties, features + 1, answers).

    An answer that is missing leaves its window out of its own column alone, as far as that is affordable;
    else windows with a missing answer are left out of all.
    """
    asked = ~np.isnan(answers)
    patterns, which = np.unique(asked, axis=1, return_inverse=True)
    size = features.shape[1]
    work = patterns.shape[1] * size**2 * (len(features) + 10 * size)
    if patterns.shape[1] > 1 and work > MOST_WORK:
        whole = asked.all(axis=1)
        features, answers = features[whole], answers[whole]
        patterns, which = np.ones((len(features), 1), bool), np.zeros(answers.shape[1], np.int64)
    if not len(features) or patterns.sum(axis=0).min() < 2:
        return np.empty((0, size + 1, answers.shape[1]))
    weights = np.empty((len(PENALTIES), size + 1, answers.shape[1]))
    for number, rows in enumerate(patterns.T):
        places = np.flatnonzero(which.ravel() == number)
        weights[:, :, places] = _penalised(features[rows], answers[np.ix_(rows, places)])
    return weights


def _penalised(features: Array, answers: Array) -> Array:
    """Return the weights and the intercept of each penalty, of one decomposition."""
    middle, level = features.mean(axis=0), answers.mean(axis=0)
    centred = features - middle
    values, vectors = np.linalg.eigh(centred.T @ centred)
    turned = vectors.T @ (centred.T @ (answers - level))
    found = []
    for penalty in PENALTIES:
        weights = vectors @ (turned / (np.maximum(values, 0.0) + penalty * len(features))[:, None])
        found.append(np.vstack([weights, level - middle @ weights]))
    return np.stack(found)
