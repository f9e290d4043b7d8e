"""What repeats itself: a season, how strong it is, and in what it was found."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from loopedge.data.tables.columns import carry_forward
from loopedge.diagnosis.advice import Advice
from loopedge.options import option
from loopedge.tasks.season import find_season
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array

__all__ = ["Season", "advise_season", "measure_season"]

STRONG = 0.3
"""From this strength on a season is worth a word."""
MOST_ROWS = 65_536
HARMONICS = 6
"""Waves of a season: of its length, of half of it, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """A season of the training rows of the longest piece without a gap.

    Args:
        period: In table rows; None where nothing repeats itself.
        strength: Share of the variance around the trend that waves of this period explain, less what chance would
            explain: 0 is none, 1 is nothing else.
        found_in: ``values``; or ``changes`` from row to row, where a trend hides it in the values.
        used: The period that the task's seasonal baseline and its MASE take; None: none.
        seasons: How many of them the training rows hold.
    """

    period: int | None
    strength: float
    found_in: Literal["values", "changes"] | None
    used: int | None
    seasons: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_season(task: SeriesTask) -> Season:
    """Find the season of the values, or else of their changes, and say how strong it is."""
    values = _longest_training_piece(task)
    period, found_in = find_season(values), "values"
    if period is None and len(values) > 8:
        period, found_in = find_season(np.diff(values, axis=0)), "changes"
    if period is None:
        return Season(period=None, strength=0.0, found_in=None, used=task.season, seasons=0.0)
    return Season(
        period=period,
        strength=float(np.mean([_strength(column, period) for column in values.T])),
        found_in="values" if found_in == "values" else "changes",
        used=task.season,
        seasons=len(values) / period,
    )


def _longest_training_piece(task: SeriesTask) -> Array:
    """Return the targets of the piece that has most training rows: float64 (rows, targets)."""
    columns = task.columns
    scaling = task.scaling()
    mean = np.zeros(len(columns.names)) if scaling is None else scaling.input_mean
    values = carry_forward(columns, task.targets, mean)
    starts, ends = columns.piece_bounds[:-1], columns.piece_bounds[1:]
    training = np.array([bounds["train"].end for bounds in task.bounds]) + columns.bounds[:-1]
    ends = np.minimum(ends, training[columns.series_of(starts)])
    longest = int((ends - starts).argmax())
    rows = values[int(starts[longest]) : max(int(starts[longest]), int(ends[longest]))]
    return rows[-MOST_ROWS:]


def _strength(values: Array, period: int) -> float:
    """Return which share of what moves around the trend waves of the period and its parts are.

    The trend is the moving mean over a season, or a straight line where there are fewer than three seasons.
    """
    if not values.var() > 1e-20 * max(1.0, float(np.square(values).max())):
        return 0.0
    at = np.arange(len(values))
    trend, first = _moving_mean(values, period), period // 2
    if len(trend) < 2 * period:
        trend, first = np.polyval(np.polyfit(at, values, 1), at), 0
    detrended = values[first : first + len(trend)] - trend
    detrended -= detrended.mean()
    parts = min(HARMONICS, period // 2)
    angles = 2 * np.pi * at[: len(trend), None] * np.arange(1, parts + 1) / period
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    whole = float(np.square(detrended).sum())
    if not whole > 0 or len(trend) <= 2 * waves.shape[1]:
        return 0.0
    fitted = waves @ np.linalg.lstsq(waves, detrended, rcond=None)[0]
    freedom = len(trend) - int(waves.shape[1])
    left = float(np.square(detrended - fitted).sum()) * len(trend) / freedom
    return min(1.0, max(0.0, 1 - left / whole))


def _moving_mean(values: Array, period: int) -> Array:
    """Return the mean over a season around each row; of an even one the two ends count half."""
    weights = np.full(period + 1 - period % 2, 1 / period)
    if period % 2 == 0:
        weights[[0, -1]] /= 2
    if len(values) < len(weights):
        return np.empty(0)
    return np.convolve(values, weights, "valid")


def advise_season(found: Season, context: int | None) -> list[Advice]:
    """Name a season that the baseline does not use, or that is longer than what a model sees.

    Args:
        found: The season.
        context: Rows that a model sees; None: a look-back was measured, which says more than the season's length.
    """
    if found.period is None or found.strength < STRONG:
        return []
    advice = []
    if found.used != found.period:
        uses = "none" if found.used is None else str(found.used)
        hidden = " once its trend is taken away" if found.found_in == "changes" else ""
        message = f"it repeats itself every {found.period} rows{hidden}; the season that baseline and MASE take is {uses}"
        advice.append(
            Advice(
                kind="season", message=message, option=option("season", found.period), weight=0.8
            )
        )
    if context is not None and found.period > context:
        message = f"a season is {found.period} rows long and the model sees {context}: it never sees a whole one"
        advice.append(
            Advice(
                kind="season", message=message, option=option("context", found.period), weight=0.5
            )
        )
    return advice
