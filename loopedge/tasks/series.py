"""Forecasting from a table: windows of one or several series, split by time, in raw units."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from loopedge.data.columns import Columns, Missing, carry_forward, fit_scaling, make_columns
from loopedge.data.tables import Selection, read_table
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.season import find_season
from loopedge.tasks.splits import Origin, rows_needed, split_bounds
from loopedge.tasks.task import SPLITS, Array, Batch, Scaling, Split
from loopedge.tasks.windows import WindowOptions, WindowTask, check_sizes

__all__ = ["SeriesTask"]


class SeriesTask(WindowTask):
    """Forecast ``horizon`` values of one or more columns from the ``context`` rows before them.

    The rows of each series are split by time: 70 % train, 15 % validation, 15 % test. The targets of
    a window lie in its split, its inputs may reach into the rows before. Scaling and season are
    fitted on the training rows alone.

    A missing value is never a target. Where values were interpolated, a window starts only after a
    row that was observed: so no input was interpolated from a value that is to be forecast.

    With one target ``rmse`` decides. With several ``scaled_rmse`` does, the error in units of each
    target's training standard deviation, and ``rmse.NAME`` is that of each.

    Args:
        columns: Targets first, then covariates; one or several series.
        horizon: Table rows that it forecasts.
        targets: How many of the columns are targets.
        season: Period of the seasonal-naive baseline in table rows; default: the strongest lag of the
            training rows' autocorrelation in the longest series, if there is one.
        origin: Which of several origins the splits follow; default: none.
        source: What errors call the data.
        window: What a forecast sees, as `WindowOptions`: ``context`` and more.

    Raises:
        InputError: There are too few rows, or a number is out of range.
    """

    name = "series"
    kind = "values"
    higher_is_better = False

    def __init__(
        self,
        columns: Columns,
        *,
        horizon: int,
        targets: int = 1,
        season: int | None = None,
        origin: Origin | None = None,
        source: str = "series",
        **window: Unpack[WindowOptions],
    ) -> None:
        check_sizes(
            {"horizon": horizon, "season": season},
            context=window["context"],
            min_context=window.get("min_context"),
        )
        super().__init__(columns, source=source, **window)
        self.horizon, self.targets, self.origin = horizon, targets, origin
        self.metric = "rmse" if targets == 1 else "scaled_rmse"
        self._check_rows()
        self._given_season = season
        self.bounds = [split_bounds(end - first, origin) for first, end in columns.spans()]
        self.stops = {split: self._find_stops(split) for split in SPLITS}
        self.notes = self._note_unused()
        mean, scale = fit_scaling(columns, self._training_rows())
        self._scaling = Scaling(
            input_mean=mean,
            input_scale=scale,
            output_mean=mean[:targets],
            output_scale=scale[:targets],
        )
        self._carried = carry_forward(columns, targets, mean)
        self.season = self._find_season() if season is None else season
        if season is not None:
            self._check_season(season)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        targets: Sequence[str],
        horizon: int,
        covariates: Sequence[str] = (),
        season: int | None = None,
        origin: Origin | None = None,
        headerless: bool = False,
        **window: Unpack[WindowOptions],
    ) -> "SeriesTask":
        """Read the task from a CSV file with a header, or a Parquet file, oldest row first.

        Args:
            path: The file.
            targets: Columns to forecast.
            horizon: Table rows that it forecasts.
            covariates: Further columns that it sees.
            season: Period of the seasonal-naive baseline in table rows; default: found.
            origin: Which of several origins the splits follow; default: none.
            headerless: Take a CSV without a header too, which holds these columns alone, in this order.
            window: What a forecast sees, as `WindowOptions`: ``context``, and ``min_context``, ``missing``,
                ``time_column``, ``group``, ``seed``.

        Raises:
            InputError: The file, a column, a value, the order or the number of rows cannot be used.
        """
        if not targets:
            raise InputError("a series needs a column to forecast", hint=option("target", "COLUMN"))
        table = read_table(
            path,
            Selection(
                numbers=(*targets, *covariates),
                group=window.get("group"),
                time=window.get("time_column"),
                headerless=headerless,
            ),
        )
        task = cls(
            make_columns(table, missing=window.get("missing", "refuse")),
            horizon=horizon,
            targets=len(targets),
            season=season,
            origin=origin,
            source=table.source,
            **window,
        )
        task.input_files = (Path(path),)
        return task

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "SeriesTask":
        """Rebuild the task from its description and its table."""
        if data is None:
            raise InputError(
                "a series needs its data", hint=f"name the table with {option_name('data')}"
            )
        origin = description.get("origin")
        old = "target" in description  # as 0.1 wrote it: one target
        missing: Missing = "refuse"
        if not old:
            missing = description["missing"]
        elif description["interpolate"]:
            missing = "interpolate"
        task = cls.from_file(
            data,
            targets=[description["target"]] if old else description["targets"],
            covariates=description["covariates"],
            context=description["context"],
            horizon=description["horizon"],
            min_context=description.get("min_context"),
            missing=missing,
            time_column=description.get("time_column"),
            group=description.get("group"),
            origin=None if origin is None else Origin(number=origin[0], count=origin[1]),
            headerless=True,
            seed=seed,
        )
        # No option of this table: its rows may be fewer than the season of those trained on.
        task.season = description["season"]
        return task

    def at_origins(self, count: int) -> list["SeriesTask"]:
        """Return the task at ``count`` origins that follow each other at the end of the data.

        The last 30 % of each series are ``count`` + 1 blocks of equal size. Origin i is tested on
        block i + 1 and validated on the block before; all rows before that are for training.

        Raises:
            InputError: There are too few rows, or ``count`` is below 2.
        """
        if count < 2:
            raise InputError(f"{option_name('origins')} is {count}, at least 2 are needed")
        tasks = [
            SeriesTask(
                self.columns,
                horizon=self.horizon,
                targets=self.targets,
                season=self._given_season,
                origin=Origin(number=number, count=count),
                source=self.source,
                **self.window_options,
            )
            for number in range(count)
        ]
        for task in tasks:
            task.input_files = self.input_files
        return tasks

    def _check_rows(self) -> None:
        """Refuse data in which no series is long enough."""
        rows = int(np.diff(self.columns.bounds).max(initial=0))
        origins = None if self.origin is None else self.origin.count
        needed = rows_needed(self.min_context, self.horizon, origins)
        if rows >= needed:
            return
        found = f"{self.source} has {rows} rows"
        if self.columns.series:
            found = (
                f"{self.source}: the longest of {len(self.columns.series)} series has {rows} rows"
            )
        sizes = f"context {self.min_context} and horizon {self.horizon}"
        if origins is not None:
            sizes += f" at {origins} origins"
        raise InputError(
            f"{found}; {sizes} need {needed} for training, validation and test",
            hint="name a longer table, or train with a lower "
            + (f"{option_name('origins')}, " if origins else "")
            + f"{option_name('context')} or {option_name('horizon')}",
        )

    def _find_stops(self, split: Split) -> Array:
        """Return the rows at which the targets of a window of ``split`` may start."""
        parts = [np.empty(0, np.int64)]
        for (first, _), bounds in zip(self.columns.spans(), self.bounds, strict=True):
            begin = max(bounds[split].first, self.min_context)
            parts.append(np.arange(begin, bounds[split].end - self.horizon + 1) + first)
        stops: Array = np.concatenate(parts)
        observed = self.columns.observed
        if not observed.all():
            asked = np.concatenate([[0], np.cumsum(observed[:, : self.targets].any(axis=1))])
            usable = asked[stops + self.horizon] > asked[stops]
            if self.missing != "indicator":
                usable &= observed[stops - 1].all(axis=1)
            stops = stops[usable]
        if not len(stops):
            raise InputError(f"{self.source} has no {split} window: too many values are missing")
        return stops

    def _note_unused(self) -> tuple[str, ...]:
        """Say how many series are too short for any window."""
        series = self.columns.series
        used = np.unique(self.columns.first_rows(np.concatenate(list(self.stops.values())) - 1))
        unused = len(series) - len(used)
        if not series or not unused:
            return ()
        return (f"{unused} of {len(series)} series are too short for a window and are not used",)

    def _check_season(self, season: int) -> None:
        """Refuse a season that lies before the first row of every window."""
        longest = max(int(self._history(stops).max()) for stops in self.stops.values())
        if season > longest:
            raise InputError(
                f"{self.source}: {option_name('season')} is {season}, at most {longest} rows stand before a window",
                hint=f"leave out {option_name('season')}, or at most {option('season', longest)}",
            )

    def _history(self, stops: Array) -> Array:
        """Return how many rows of its series stand before each window's targets."""
        history: Array = stops - self.columns.first_rows(stops - 1)
        return history

    def _training_rows(self) -> Array:
        rows = np.zeros(len(self.columns.values), bool)
        for (first, _), bounds in zip(self.columns.spans(), self.bounds, strict=True):
            rows[first : first + bounds["train"].end] = True
        return rows

    def _find_season(self) -> int | None:
        longest = int(np.diff(self.columns.bounds).argmax())
        first = int(self.columns.bounds[longest])
        return find_season(self._carried[first : first + self.bounds[longest]["train"].end])

    def _targets(self, stops: Array) -> Array:
        """Return float64 (batch, horizon, targets), NaN where nothing was observed."""
        rows = stops[:, None] + np.arange(self.horizon)
        values = self.columns.values[:, : self.targets][rows]
        return np.where(self.columns.observed[:, : self.targets][rows], values, np.nan)

    def _cut(self, stops: Array) -> Batch:
        inputs, mask = self._inputs(stops)
        targets = self._targets(stops).astype(np.float32)
        return Batch(inputs=inputs, targets=targets, attention_mask=mask)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Add up squared and absolute errors of each target, where it is not NaN."""
        error = outputs.astype(np.float64) - targets  # (batch, horizon, targets)
        asked = ~np.isnan(targets)
        error = np.where(asked, error, 0.0)
        return {
            "squared": np.square(error).sum(axis=(0, 1)),
            "absolute": np.abs(error).sum(axis=(0, 1)),
            "asked": asked.sum(axis=(0, 1)),
        }

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``rmse`` and ``mae``, or with several targets ``scaled_rmse`` and ``rmse.NAME``."""
        squared, asked = tally["squared"], tally["asked"]
        if self.targets == 1:
            count = max(1, int(asked[0]))
            return {
                "rmse": float(np.sqrt(squared[0] / count)),
                "mae": float(tally["absolute"][0] / count),
            }
        scaled = (squared / np.square(self._scaling.output_scale.astype(np.float64))).sum()
        each = np.sqrt(squared / np.maximum(1, asked))
        return {
            "scaled_rmse": float(np.sqrt(scaled / max(1, asked.sum()))),
            **{
                f"rmse.{name}": float(value)
                for name, value in zip(self.columns.names, each, strict=False)
            },
        }

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score repeating the last value and, where there is a season, the last season.

        The last season may lie before the context: the baseline sees all that came before. Where the
        series has no whole season yet, the last value stands in, so that all baselines and the model
        are scored on the same windows. A missing value is the last one before it.
        """
        stops = self._evaluated(split, samples)
        targets = self._targets(stops)
        last = np.broadcast_to(self._carried[stops - 1][:, None], targets.shape)
        scores = {"naive_last": self.score(last, targets)}
        if self.season is not None:
            ahead = np.arange(self.horizon)
            same = stops[:, None] + ahead - self.season * (ahead // self.season + 1)
            reached = self._history(stops) >= self.season
            seasonal = self._carried[np.where(reached[:, None], same, 0)]
            forecast = np.where(reached[:, None, None], seasonal, last)
            scores["seasonal_naive"] = self.score(forecast, targets)
        return scores

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that reads the last position."""
        return {**super().model_fields(), "outputs": self.targets, "horizon": self.horizon}

    def describe(self) -> dict[str, Any]:
        """Return name, columns, sizes, season, split, scaling and metric; no path."""
        names = list(self.columns.names)
        rows: dict[Split, list[int]] | None = None
        if not self.columns.series:
            rows = {split: [b.first, b.end] for split, b in self.bounds[0].items()}
        return {
            **super().describe(),
            "targets": names[: self.targets],
            "covariates": names[self.targets :],
            "horizon": self.horizon,
            "season": self.season,
            "rows": rows,
            "origin": None if self.origin is None else [self.origin.number, self.origin.count],
        }
