"""Every plain forecast of a table, in the order in which they are fitted."""

from collections.abc import Callable
from functools import partial

from loopedge.baselines.attempts import Judged, attempt
from loopedge.baselines.scores import BaselineScores
from loopedge.baselines.series.boosting import boosting_on_lags
from loopedge.baselines.series.climatology import climatology_and_autoregression
from loopedge.baselines.series.naive import last_value, seasonal_naive, window_mean
from loopedge.baselines.series.ridge import ridge_on_lags
from loopedge.baselines.series.windows import Forecaster, SeriesWindows
from loopedge.tasks.series import SeriesTask

__all__ = ["refitted", "series_baselines"]

FITS: dict[str, Callable[[SeriesWindows], Judged]] = {
    "last value": last_value,
    "seasonal naive": seasonal_naive,
    "window mean": window_mean,
    "ridge on lags": ridge_on_lags,
    "climatology + autoregression": climatology_and_autoregression,
    "boosting on lags": boosting_on_lags,
}
"""By their names in the leaderboard."""


def series_baselines(task: SeriesTask, samples: int) -> list[BaselineScores]:
    """Fit and score every plain forecast.

    Args:
        task: A table.
        samples: Most windows of a split.
    """
    windows = SeriesWindows(task, samples)
    return [attempt(task, name, partial(fit, windows)) for name, fit in FITS.items()]


def refitted(task: SeriesTask, name: str, samples: int) -> Forecaster | None:
    """Fit a plain forecast again, for its forecasts: scores alone are kept of it.

    Args:
        task: The table that it was fitted on.
        name: Of `FITS`.
        samples: Most windows of a split, as when it was scored.

    Returns:
        Stops to forecasts; None where there is no such forecast, or it cannot be fitted.
    """
    if name not in FITS:
        return None
    windows = _Recorded(task, samples)
    attempt(task, name, partial(FITS[name], windows))
    return windows.forecast


class _Recorded(SeriesWindows):
    """Keeps the forecaster that is judged."""

    forecast: Forecaster | None = None

    def judge(self, forecast: Forecaster, about: str) -> Judged:
        """Score it, and keep it."""
        self.forecast = forecast
        return super().judge(forecast, about)
