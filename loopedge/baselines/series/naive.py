"""Forecasts that fit next to nothing: the last value, the last season, the mean of the last values."""

import numpy as np

from loopedge.baselines.attempts import Best, CannotFitError, Judged
from loopedge.baselines.series.seasons import Season, seasons_of
from loopedge.baselines.series.windows import Forecaster, SeriesWindows
from loopedge.tasks.task import Array

__all__ = ["last_value", "seasonal_naive", "window_mean"]

MOST_LENGTHS = 64
"""Lengths of a window that are tried: all of a shorter context, then some."""


def last_value(windows: SeriesWindows) -> Judged:
    """Repeat the last value."""
    task = windows.task

    def forecast(stops: Array) -> Array:
        last = windows.lags(stops, 1, task.targets)
        return np.repeat(last, task.horizon, axis=1)

    return windows.judge(forecast, "repeated over the horizon")


def seasonal_naive(windows: SeriesWindows) -> Judged:
    """Repeat the last season; of several seasons the one that is best on the validation windows.

    Raises:
        CannotFitError: There is no season.
    """
    task = windows.task
    longest = int(windows.history(windows.chosen_on).max(initial=0))
    seasons = [season for season in seasons_of(task) if season.rows <= longest]
    if not seasons:
        raise CannotFitError("no season shows in the training rows")
    found = None if task.given_season is not None else task.season
    best: Best[tuple[Season, Forecaster]] = Best()
    for season in seasons:
        forecast = _repeat(windows, season.rows)
        loss = windows.loss(windows.by_chunks(forecast, windows.chosen_on))
        best.offer(loss, (season, forecast))
    season, forecast = best.candidate
    return windows.judge(forecast, f"{season.text(found)}{_unit(windows)}")


def _repeat(windows: SeriesWindows, season: int) -> Forecaster:
    """Return the forecast of a season; where less than one stands before a window, the last value stands in."""
    task = windows.task
    ahead = np.arange(task.horizon)

    def forecast(stops: Array) -> Array:
        same = stops[:, None] + ahead - season * (ahead // season + 1)
        reached = (windows.history(stops) >= season)[:, None]
        rows = np.where(reached, same, stops[:, None] - 1)
        return windows.values[rows, : task.targets]

    return forecast


def _unit(windows: SeriesWindows) -> str:
    """Say what an error of 1 in MASE is."""
    scale = windows.task.mase_scale
    typical = [value for value in scale.typical() if value is not None]
    if not typical:
        return "; MASE is undefined: the training rows do not change"
    units = ", ".join(f"{value:.4g}" for value in typical)
    over = "a row" if scale.season == 1 else f"{scale.season} rows"
    return f"; MASE 1 is {units}, the mean change over {over} in training"


def window_mean(windows: SeriesWindows) -> Judged:
    """Repeat the mean of the last values, as many as are best on the validation windows."""
    task = windows.task
    lengths = _lengths(task.context)
    best = min(
        lengths,
        key=lambda length: windows.loss(
            windows.by_chunks(_mean(windows, length), windows.chosen_on)
        ),
    )
    of = "value" if best == 1 else "values"
    return windows.judge(_mean(windows, best), f"of the last {best} {of}")


def _lengths(context: int) -> list[int]:
    if context <= MOST_LENGTHS:
        return list(range(1, context + 1))
    return sorted({round(length) for length in np.geomspace(1, context, MOST_LENGTHS).tolist()})


def _mean(windows: SeriesWindows, length: int) -> Forecaster:
    """Return the forecast by the mean of the values that were observed in the last rows."""
    task = windows.task
    observed = task.columns.observed

    def forecast(stops: Array) -> Array:
        rows = windows.rows_before(stops, length)
        seen = windows.within(stops, length)[:, :, None] & observed[rows, : task.targets]
        values = windows.lags(stops, length, task.targets)
        count = seen.sum(axis=1)
        mean = np.where(seen, values, 0.0).sum(axis=1) / np.maximum(1, count)
        mean = np.where(count > 0, mean, values[:, 0])
        return np.repeat(mean[:, None], task.horizon, axis=1)

    return forecast
