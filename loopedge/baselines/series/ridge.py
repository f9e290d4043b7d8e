"""Ridge regression on lags: every step of the horizon and every target straight from the last rows."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from loopedge.baselines.attempts import Best, Judged
from loopedge.baselines.series.levels import LEVELS, Level, Levelled
from loopedge.baselines.series.windows import SeriesWindows, evenly
from loopedge.tasks.task import Array

__all__ = ["lag_counts", "ridge_on_lags"]

PENALTIES = (1e-6, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of standardized features, per training window."""
MOST_FEATURES = 512
MOST_WINDOWS = 10_000
MOST_WORK = 2e10
"""Multiplications of all solutions, where targets are missing: each pattern of them takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """Weights of standardized lags, (features, horizon * targets), and their intercepts."""

    lags: int
    level: Level
    penalty: float
    middle: Array
    scale: Array
    weights: Array
    intercepts: Array

    def forecast(self, windows: SeriesWindows, stops: Array) -> Array:
        """Forecast windows from their last rows."""
        return self.answer(windows, Levelled.of(windows, stops, self.lags, self.level))

    def answer(self, windows: SeriesWindows, levelled: Levelled) -> Array:
        """Forecast windows from at least as many lags."""
        task = windows.task
        lags = levelled.lags[:, : self.lags]
        features = (lags.reshape(len(lags), -1) - self.middle) / self.scale
        answers = features @ self.weights + self.intercepts
        return levelled.back(answers.reshape(len(lags), task.horizon, task.targets))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What the weights of some answers follow from, of any number of lags.

    Args:
        places: Which answers, of (horizon * targets).
        gram: (features, features): products of centred features.
        right: (features, places): products of centred features and answers.
        middle: (features,): means of the features, where these answers are asked.
        level: (places,): means of the answers.
        windows: How many there are.
    """

    places: Array
    gram: Array
    right: Array
    middle: Array
    level: Array
    windows: int


def ridge_on_lags(windows: SeriesWindows) -> Judged:
    """Fit weights for each level, number of lags and penalty; the validation windows choose.

    Raises:
        CannotFitError: Too few training windows have targets.
    """
    columns = len(windows.task.columns.names)
    counts = lag_counts(min(windows.task.context, max(1, MOST_FEATURES // columns)))
    stops = evenly(windows.training, MOST_WINDOWS)
    best: Best[_Fitted] = Best()
    for level in LEVELS:
        training = Levelled.of(windows, stops, counts[-1], level)
        chosen_on = Levelled.of(windows, windows.chosen_on, counts[-1], level)
        answers = training.turn(windows.targets(stops)).reshape(len(stops), -1)
        features = training.lags.reshape(len(stops), -1)
        middle, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 1e-12 * (1.0 + np.abs(middle)), scale, 1.0)
        sums = _sums((features - middle) / scale, answers)
        for count in counts if sums else ():
            size = count * columns
            for penalty, weights in zip(PENALTIES, _weights(sums, size), strict=True):
                fitted = _Fitted(
                    lags=count,
                    level=level,
                    penalty=penalty,
                    middle=middle[:size],
                    scale=scale[:size],
                    weights=weights[:-1],
                    intercepts=weights[-1],
                )
                best.offer(windows.loss(fitted.answer(windows, chosen_on)), fitted)
    chosen = best.candidate
    lags = f"{chosen.lags} {'lag' if chosen.lags == 1 else 'lags'}"
    about = f"{lags}, penalty {chosen.penalty:g}, measured from the {chosen.level}"
    return windows.judge(partial(chosen.forecast, windows), about)


def lag_counts(context: int) -> list[int]:
    """Return the numbers of lags that are tried: up to the context, in steps that grow."""
    known = (1, 2, 3, 5, 7, 10, 14, 21, 28, 48, 72, 96, 144, 192, 288)
    return [*(count for count in known if count < context), context]


def _sums(features: Array, answers: Array) -> list[_Sums]:
    """Return the sums of all answers, those that are asked in the same windows together; none where one is never asked.

    An answer that is missing leaves its window out of its own sums alone, as far as that is affordable;
    else windows with a missing answer are left out of all.
    """
    asked = ~np.isnan(answers)
    patterns, which = np.unique(asked, axis=1, return_inverse=True)
    if patterns.shape[1] > 1 and patterns.shape[1] * features.shape[1] * features.size > MOST_WORK:
        whole = asked.all(axis=1)
        features, answers = features[whole], answers[whole]
        patterns, which = np.ones((len(features), 1), bool), np.zeros(answers.shape[1], np.int64)
    if not len(features) or patterns.sum(axis=0).min() < 2:
        return []
    found = []
    for number, rows in enumerate(patterns.T):
        places = np.flatnonzero(which.ravel() == number)
        seen, wanted = features[rows], answers[np.ix_(rows, places)]
        middle, level = seen.mean(axis=0), wanted.mean(axis=0)
        centred = seen - middle
        found.append(
            _Sums(
                places=places,
                gram=centred.T @ centred,
                right=centred.T @ (wanted - level),
                middle=middle,
                level=level,
                windows=len(seen),
            )
        )
    return found


def _weights(sums: list[_Sums], size: int) -> Array:
    """Return weights and intercepts of the first features: (penalties, size + 1, answers), of one decomposition each."""
    answers = sum(len(each.places) for each in sums)
    found = np.empty((len(PENALTIES), size + 1, answers))
    for each in sums:
        values, vectors = np.linalg.eigh(each.gram[:size, :size])
        turned = vectors.T @ each.right[:size]
        for place, penalty in enumerate(PENALTIES):
            shrunk = turned / (np.maximum(values, 0.0) + penalty * each.windows)[:, None]
            weights = vectors @ shrunk
            found[place, :-1, each.places] = weights.T
            found[place, -1, each.places] = each.level - each.middle[:size] @ weights
    return found
