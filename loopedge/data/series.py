"""Forecasting from a CSV file: windows of a series, split by time, baselines, raw-unit metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.csv_columns import Columns, read_columns
from loopedge.data.metrics import Metrics
from loopedge.data.task import SPLITS, Array, Batch, Scaling, Split, Task, generator_of
from loopedge.errors import InputError

__all__ = ["SeriesTask", "find_season"]

TRAIN_PERCENT, VALIDATION_PERCENT = 70, 15
LEAST_CORRELATION = 0.2
"""A lag counts as a season from this autocorrelation on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """First row, and one past the last row, that the targets of a split may stand in."""

    first: int
    end: int


class SeriesTask(Task):
    """Forecast ``horizon`` values of a column from the ``context`` rows before them.

    The rows are split by time: 70 % train, 15 % validation, 15 % test. The targets of a window lie
    in its split, its inputs may reach into the rows before. Scaling and season are fitted on the
    training rows alone.

    Where values are missing and ``interpolate`` is set, a filled value is an input and never a
    target, and a window starts only after a row that was observed: so no input was interpolated
    from a value that is to be forecast.

    Args:
        columns: Target first, then covariates.
        context: Rows a forecast sees.
        horizon: Rows it forecasts.
        season: Period of the seasonal-naive baseline in rows; default: the strongest lag of the
            training rows' autocorrelation, if there is one.
        interpolate: Whether missing values were filled.
        time_column: Column by which the order of the rows was checked.
        seed: Of the batches.
        source: What errors call the data.

    Raises:
        InputError: There are too few rows, or a number is out of range.
    """

    name = "series"
    kind = "values"
    metric = "rmse"
    higher_is_better = False

    def __init__(
        self,
        columns: Columns,
        *,
        context: int,
        horizon: int,
        season: int | None = None,
        interpolate: bool = False,
        time_column: str | None = None,
        seed: int = 0,
        source: str = "series",
    ) -> None:
        for option, value in (("context", context), ("horizon", horizon), ("season", season)):
            if value is not None and value < 1:
                raise InputError(f"--{option} is {value}, at least 1 is needed")
        self.columns = columns
        self.context = context
        self.horizon = horizon
        self.interpolate = interpolate
        self.time_column = time_column
        self.seed = seed
        rows = len(columns.values)
        needed = rows_needed(context, horizon)
        if rows < needed:
            raise InputError(
                f"{source} has {rows} rows; context {context} and horizon {horizon} need "
                f"{needed} for training, validation and test",
                hint="lower --context or --horizon",
            )
        self.bounds = split_bounds(rows)
        self._targets = np.where(columns.observed, columns.values, np.nan)[:, :1]
        self._starts = {split: self._find_starts(split, source) for split in SPLITS}
        train = self.bounds["train"].end
        self.season = find_season(columns.values[:train, 0]) if season is None else season
        self._scaling = fit_scaling(columns, train)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        target: str,
        context: int,
        horizon: int,
        covariates: Sequence[str] = (),
        interpolate: bool = False,
        season: int | None = None,
        time_column: str | None = None,
        seed: int = 0,
    ) -> "SeriesTask":
        """Read the task from a CSV file with a header, oldest row first.

        Args:
            path: The file.
            target: Column to forecast.
            context: Rows a forecast sees.
            horizon: Rows it forecasts.
            covariates: Further columns that it sees.
            interpolate: Fill missing values along a straight line.
            season: Period of the seasonal-naive baseline in rows; default: found.
            time_column: Column whose times must ascend; the model does not see it.
            seed: Of the batches.

        Raises:
            InputError: The file, a column, a value, the order or the number of rows cannot be used.
        """
        names = [target, *covariates]
        used = names if time_column is None else [*names, time_column]
        repeated = next((name for name in used if used.count(name) > 1), None)
        if repeated is not None:
            raise InputError(f"column {repeated!r} is named twice as target, covariate or time")
        return cls(
            read_columns(path, names, interpolate=interpolate, time_column=time_column),
            context=context,
            horizon=horizon,
            season=season,
            interpolate=interpolate,
            time_column=time_column,
            seed=seed,
            source=Path(path).name,
        )

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "SeriesTask":
        """Rebuild the task from its description and its CSV file."""
        if data is None:
            raise InputError("a series needs its data", hint="name the CSV file with --data")
        return cls.from_csv(
            data,
            target=description["target"],
            covariates=description["covariates"],
            context=description["context"],
            horizon=description["horizon"],
            interpolate=description["interpolate"],
            season=description["season"],
            time_column=description.get("time_column"),
            seed=seed,
        )

    def _find_starts(self, split: Split, source: str) -> Array:
        """Return the rows at which the targets of a window of ``split`` may start."""
        bounds = self.bounds[split]
        starts = np.arange(
            max(bounds.first, self.context), bounds.end - self.horizon + 1, dtype=np.int64
        )
        asked = ~np.isnan(self._targets[starts[:, None] + np.arange(self.horizon), 0])
        usable: Array = starts[asked.any(axis=1) & self.columns.observed[starts - 1].all(axis=1)]
        if not len(usable):
            raise InputError(f"{source} has no {split} window: too many values are missing")
        return usable

    def windows(self, split: Split) -> int:
        """Return how many windows a split has."""
        return len(self._starts[split])

    def _cut(self, starts: Array) -> Batch:
        before = starts[:, None] + np.arange(-self.context, 0)  # (batch, context)
        after = starts[:, None] + np.arange(self.horizon)  # (batch, horizon)
        return Batch(
            inputs=self.columns.values[before].astype(np.float32),
            targets=self._targets[after].astype(np.float32),
        )

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` windows, with replacement."""
        starts = self._starts[split]
        return self._cut(
            starts[generator_of(self.seed, split, step).integers(len(starts), size=size)]
        )

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield every window of a split, or ``samples`` evenly spaced ones where there are more."""
        starts = self._evaluated(split, samples)
        for first in range(0, len(starts), size):
            yield self._cut(starts[first : first + size])

    def _evaluated(self, split: Split, samples: int) -> Array:
        starts = self._starts[split]
        if len(starts) > samples:
            starts = starts[np.linspace(0, len(starts) - 1, samples).round().astype(np.int64)]
        return starts

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score repeating the last value and, where there is a season, the last season.

        The last season may lie before the context: the baseline sees all that came before.
        """
        starts = self._evaluated(split, samples)
        after = starts[:, None] + np.arange(self.horizon)
        targets = self._targets[after]
        values = self.columns.values[:, :1]
        last = np.broadcast_to(values[starts - 1][:, None], targets.shape)
        scores = {"naive_last": self.score(last, targets)}
        if self.season is not None:
            ahead = np.arange(self.horizon)
            same = after - self.season * (ahead // self.season + 1)
            reachable = (same >= 0).all(axis=1)
            if reachable.any():
                scores["seasonal_naive"] = self.score(values[same[reachable]], targets[reachable])
        return scores

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that reads the last position."""
        return {
            "features": len(self.columns.names),
            "outputs": 1,
            "horizon": self.horizon,
            "read": "last",
            "causal": True,
            "max_length": self.context,
        }

    def scaling(self) -> Scaling | None:
        """Return mean and standard deviation of the observed training values."""
        return self._scaling

    def describe(self) -> dict[str, Any]:
        """Return name, columns, sizes, season, split, scaling and metric; no path."""
        target, *covariates = self.columns.names
        return {
            "name": self.name,
            "kind": self.kind,
            "target": target,
            "covariates": covariates,
            "context": self.context,
            "horizon": self.horizon,
            "season": self.season,
            "interpolate": self.interpolate,
            "time_column": self.time_column,
            "rows": {split: [bounds.first, bounds.end] for split, bounds in self.bounds.items()},
            "mean": self._scaling.input_mean.tolist(),
            "scale": self._scaling.input_scale.tolist(),
            "seed": self.seed,
            "metric": self.metric,
        }


def split_bounds(rows: int) -> dict[Split, Bounds]:
    """Return the rows of the three splits: 70, 15 and 15 %, in the order of time."""
    train = rows * TRAIN_PERCENT // 100
    validation = rows * (TRAIN_PERCENT + VALIDATION_PERCENT) // 100
    return {
        "train": Bounds(first=0, end=train),
        "validation": Bounds(first=train, end=validation),
        "test": Bounds(first=validation, end=rows),
    }


def rows_needed(context: int, horizon: int) -> int:
    """Return the least number of rows that gives every split a window."""
    rows = context + 3 * horizon
    while True:
        bounds = split_bounds(rows)
        train = bounds["train"].end - context - horizon
        others = min(bounds[s].end - bounds[s].first for s in SPLITS[1:]) - horizon
        later = bounds["validation"].first - context
        if min(train, others, later) >= 0:
            return rows
        rows += max(1, -min(train, others))


def fit_scaling(columns: Columns, train: int) -> Scaling:
    """Fit mean and standard deviation on the observed values of the first ``train`` rows.

    A column that is constant there, or has no value there, gets the scale 1.
    """
    means, scales = [], []
    for place in range(len(columns.names)):
        seen = columns.values[:train, place][columns.observed[:train, place]]
        means.append(float(seen.mean()) if len(seen) else 0.0)
        spread = float(seen.std()) if len(seen) else 0.0
        # Below that, float32 cannot tell the values apart and the quotient is noise.
        smallest = 1e-6 * max(abs(means[-1]), float(np.finfo(np.float32).tiny))
        scales.append(spread if spread > smallest else 1.0)
    mean, scale = np.array(means, np.float32), np.array(scales, np.float32)
    return Scaling(input_mean=mean, input_scale=scale, output_mean=mean[:1], output_scale=scale[:1])


def find_season(values: Array) -> int | None:
    """Return the lag with the strongest peak of the autocorrelation, past its first zero.

    Args:
        values: float64 (rows,).

    Returns:
        A lag from 2 to half the rows, or None where no peak reaches 0.2.
    """
    rows = len(values)
    centred = values - values.mean()
    power = float(centred @ centred)
    if rows < 8 or power == 0:
        return None
    spectrum = np.fft.rfft(centred, 2 * rows)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), 2 * rows)[: rows // 2 + 1] / power
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return None
    middle = correlation[1:-1]
    peaks = 1 + np.flatnonzero((middle >= correlation[:-2]) & (middle > correlation[2:]))
    peaks = peaks[(peaks > below[0]) & (correlation[peaks] >= LEAST_CORRELATION)]
    return int(peaks[correlation[peaks].argmax()]) if len(peaks) else None
