"""Plain regressions on lags, fitted on training windows and measured on held-out ones: what rows before a row explain."""

import numpy as np

from loopedge.diagnosis.tables.lagged import Lagged
from loopedge.errors import MissingExtraError
from loopedge.tasks.task import Array

__all__ = ["base_errors", "check_extra", "held_out_errors"]

PENALTIES = (1e-3, 1e-1, 10.0)
"""Of the ridge, in units of the samples."""
MOST_FEATURES = 512
"""Lags times columns that are looked at: the time of boosting grows with them."""
FEW_FEATURES = 192
"""With more of them fewer trees are fitted, so that a fit takes no longer."""
TREES = 80
BOOSTING = {
    "max_leaf_nodes": 15,
    "max_bins": 63,
    "learning_rate": 0.15,
    "early_stopping": False,
    "random_state": 0,
}


def check_extra() -> None:
    """Refuse to start without scikit-learn.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import sklearn.ensemble  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("loopedge diagnose", extra="pilot") from error


def base_errors(fit: Lagged, held: Lagged) -> Array:
    """Return squared errors of what knows no lag, float64 (samples, outputs).

    Of each output the better of the mean of training and, for a forecast, the last value: a series that climbs is far
    from its mean, and to explain that is no merit.
    """
    mean: Array = np.square(held.targets - fit.targets.mean(axis=0))
    if held.last is None:
        return mean
    last = np.square(held.targets - held.last)
    better: Array = np.where(last.mean(axis=0) < mean.mean(axis=0), last, mean)
    return better


def held_out_errors(fit: Lagged, held: Lagged, lags: int) -> tuple[Array, str]:
    """Return squared errors of the better regression on held-out windows, float64 (samples, outputs), and its name.

    Args:
        fit: Training windows.
        held: Later windows.
        lags: The latest rows that are seen.
    """
    found = {
        "ridge": _ridge_errors(fit, held, lags),
        "boosting": _boosting_errors(fit, held, lags),
    }
    means = {name: errors.mean(axis=0) for name, errors in found.items()}
    errors = np.where(means["boosting"] < means["ridge"], found["boosting"], found["ridge"])
    name = min(means, key=lambda each: float(means[each].mean()))
    return errors, name


def _ridge_errors(fit: Lagged, held: Lagged, lags: int) -> Array:
    """Fit one ridge for all outputs; of a few penalties the best one of each output counts."""
    inputs, others = fit.within(lags), held.within(lags)
    centre, middle = inputs.mean(axis=0), fit.targets.mean(axis=0)
    inputs = inputs - centre
    values, vectors = np.linalg.eigh(inputs.T @ inputs)
    projected = vectors.T @ (inputs.T @ (fit.targets - middle))
    seen = (others - centre) @ vectors
    found = []
    for penalty in PENALTIES:
        shrunk = np.maximum(values, 0.0) + penalty * len(inputs) / 100 + 1e-9
        found.append(np.square(held.targets - middle - seen @ (projected / shrunk[:, None])))
    means = np.array([errors.mean(axis=0) for errors in found])
    best = means.argmin(axis=0)
    chosen: Array = np.stack(found)[best, :, np.arange(len(best))].T
    return chosen


def _boosting_errors(fit: Lagged, held: Lagged, lags: int) -> Array:
    """Fit boosted trees to each output; of a forecast to its change from the last value, seen from there.

    Trees do not go on beyond what they saw: levels that move are out of their reach, changes are not.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    inputs, others = fit.within(lags), held.within(lags)
    targets = fit.targets
    found = np.empty_like(held.targets)
    moving = _moves(fit)
    trees_fitted = min(TREES, max(TREES // 4, TREES * FEW_FEATURES // max(1, inputs.shape[1])))
    for output in range(targets.shape[1]):
        asked, seen = targets[:, output], (inputs, others)
        offset: Array = np.zeros(len(others))
        if moving[output] and fit.last is not None and held.last is not None:
            asked = asked - fit.last[:, output]
            offset = held.last[:, output]
            seen = (_from_last(fit, lags), _from_last(held, lags))
        trees = HistGradientBoostingRegressor(max_iter=trees_fitted, **BOOSTING)
        trees.fit(seen[0], asked)
        found[:, output] = np.square(held.targets[:, output] - offset - trees.predict(seen[1]))
    return found


def _moves(fit: Lagged) -> list[bool]:
    """Tell of each output whether the last value foretells it better than the mean does."""
    if fit.last is None:
        return [False] * fit.targets.shape[1]
    changes = np.square(fit.targets - fit.last).mean(axis=0)
    moving: list[bool] = (changes < fit.targets.var(axis=0)).tolist()
    return moving


def _from_last(part: Lagged, lags: int) -> Array:
    """Return the latest rows as differences from the last one, and that row itself: (samples, features)."""
    rows = part.inputs[:, part.inputs.shape[1] - lags :]
    differences = rows[:, :-1] - rows[:, -1:]
    return np.concatenate([differences, rows[:, -1:]], axis=1).reshape(len(rows), -1)
