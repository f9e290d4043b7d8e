"""Forecasting from a table: windows of one or several series, split by time, in raw units."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from loopedge.data.tables.columns import Columns, Missing, carry_forward, make_columns
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import expand_names
from loopedge.data.tables.reading import Selection, find_unread_times, read_table
from loopedge.data.tables.window_scaling import WINDOW_FLOOR, window_statistics
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.intervals import Forecasts, Intervals, fit_intervals, window_deviations
from loopedge.tasks.metrics import (
    Metrics,
    Tally,
    forecast_metrics,
    forecast_tally,
    unit_tally,
)
from loopedge.tasks.season import SeasonalScale, find_season, seasonal_scale
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
    target's training standard deviation, and ``rmse.NAME`` is that of each. ``mase`` is the mean absolute
    error in units of what each series changes over a season in its training rows, as `SeasonalScale`.

    Args:
        columns: Targets first, then covariates; one or several series.
        horizon: Table rows that it forecasts.
        targets: How many of the columns are targets.
        season: Period of the seasonal-naive baseline in table rows; default: the strongest lag of the
            training rows' autocorrelation in the longest piece without a gap, if there is one.
        origin: Which of several origins the splits follow; default: none.
        source: What errors call the data.
        window: What a forecast sees, as `WindowOptions`: ``context`` and more.

    Raises:
        InputError: There are too few rows, or a number is out of range.
    """

    given_season: int | None
    """The season that was asked for; None: it was looked for."""

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
        self._check_rows()
        self.given_season = season
        self.bounds = [split_bounds(end - first, origin) for first, end in columns.spans()]
        self.stops = {split: self._find_stops(split) for split in SPLITS}
        self._say_left_out()
        self.findings += self._find_unused()
        mean, scale = self._fit(self._rows_of("train"), self._rows_of("test"), targets=targets)
        self._scaling = Scaling(
            input_mean=mean,
            input_scale=scale,
            output_mean=mean[:targets],
            output_scale=scale[:targets],
        )
        self._carried = carry_forward(columns, targets, mean)
        self._use_season(self._find_season() if season is None else season)
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
            covariates: Further columns that it sees; patterns, as `expand_names` reads them.
            season: Period of the seasonal-naive baseline in table rows; default: found.
            origin: Which of several origins the splits follow; default: none.
            headerless: Take a CSV without a header too, which holds these columns alone, in this order.
            window: What a forecast sees, as `WindowOptions`: ``context``, and ``min_context``, ``missing``,
                ``time_column``, ``group``, ``frequency``, ``gaps``, ``form``, ``scaling``, ``seed``.

        Raises:
            InputError: The file, a column, a value, the order or the number of rows cannot be used.
        """
        if not targets:
            raise InputError("a series needs a column to forecast", hint=option("target", "COLUMN"))
        group, time, form = window.get("group"), window.get("time_column"), window.get("form")
        if not headerless:
            covariates = expand_names(path, covariates, without=(*targets, group, time), form=form)
        selection = Selection(
            numbers=(*targets, *covariates), group=group, time=time, headerless=headerless
        )
        table = read_table(path, selection, form)
        if not headerless:
            unread = find_unread_times(path, selection, form)
            table = replace(table, findings=(*table.findings, *unread))
        task = cls(
            make_columns(
                table,
                missing=window.get("missing", "refuse"),
                frequency=window.get("frequency"),
                gaps=window.get("gaps", "split"),
            ),
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
            frequency=description.get("frequency"),
            gaps=description.get("gaps", "cross"),  # as before there was a choice
            form=TableFormat.from_json(description.get("form", {})),
            scaling=description.get("scaling", "column"),
            wide=description.get("wide", False),
            origin=None if origin is None else Origin(number=origin[0], count=origin[1]),
            headerless=True,
            seed=seed,
        )
        # No option of this table: its rows may be fewer than the season of those trained on.
        task._use_season(description["season"])
        task.compare_step(description.get("step"))
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
                season=self.given_season,
                origin=Origin(number=number, count=count),
                source=self.source,
                **self.window_options,
            )
            for number in range(count)
        ]
        for task in tasks:
            task.input_files = self.input_files
        return tasks

    def at_context(self, context: int, *, min_context: int | None = None) -> "SeriesTask":
        """Return the task of the same table that sees another number of rows.

        Args:
            context: Table rows of a window.
            min_context: Least table rows of history; default: the context.

        Raises:
            InputError: There are too few rows.
        """
        window = self.window_options
        window["context"], window["min_context"] = context, min_context
        task = SeriesTask(
            self.columns,
            horizon=self.horizon,
            targets=self.targets,
            season=self.given_season,
            origin=self.origin,
            source=self.source,
            **window,
        )
        task.input_files = self.input_files
        return task

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
        stops = self._within_pieces(np.concatenate(parts), self.horizon)
        if not len(stops) and (error := self._gaps_error(split, self.horizon)) is not None:
            raise error
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

    def _find_unused(self) -> tuple[Finding, ...]:
        """Say how many series are too short for any window."""
        series = self.columns.series
        if not series:
            return ()
        used = np.unique(self.columns.first_rows(np.concatenate(list(self.stops.values())) - 1))
        unused = len(series) - len(used)
        if not unused:
            return ()
        message = f"{unused} of {len(series)} series are too short for a window and are not used"
        return (Finding(kind="left-out", message=message),)

    def _check_season(self, season: int) -> None:
        """Refuse a season that lies before the first row of every window."""
        longest = max(int(self._history(stops).max()) for stops in self.stops.values())
        if season > longest:
            raise InputError(
                f"{self.source}: {option_name('season')} is {season}, at most {longest} rows stand before a window",
                hint=f"leave out {option_name('season')}, or at most {option('season', longest)}",
            )

    def _rows_of(self, split: Split) -> Array:
        """Return which table rows are the targets of a split: bool (table rows,)."""
        rows = np.zeros(len(self.columns.values), bool)
        for (first, _), bounds in zip(self.columns.spans(), self.bounds, strict=True):
            begin = 0 if split == "train" else bounds[split].first
            rows[first + begin : first + bounds[split].end] = True
        return rows

    def _find_season(self) -> int | None:
        """Find it in the piece that has most training rows."""
        starts, ends = self.columns.piece_bounds[:-1], self.columns.piece_bounds[1:]
        if not len(starts):
            return None
        training = (
            np.array([bounds["train"].end for bounds in self.bounds]) + self.columns.bounds[:-1]
        )
        series = np.searchsorted(self.columns.bounds, starts, side="right") - 1
        ends = np.minimum(ends, training[series])
        longest = int((ends - starts).argmax())
        return find_season(self._carried[int(starts[longest]) : max(0, int(ends[longest]))])

    def _use_season(self, season: int | None) -> None:
        """Take a season, the unit of MASE that follows from it, and the metric that decides."""
        self.season = season
        ends = [
            first + own["train"].end
            for (first, _), own in zip(self.columns.spans(), self.bounds, strict=True)
        ]
        self.mase_scale: SeasonalScale = seasonal_scale(
            self.columns, self.targets, season, np.array(ends)
        )
        used = np.zeros(len(ends), bool)  # those with a window; stops ascend
        for stops in self.stops.values():
            used |= np.diff(np.searchsorted(stops, self.columns.bounds + 1)) > 0
        found = self.mase_scale.findings(self.columns.names[: self.targets], used)
        self.findings = (*(f for f in self.findings if f.kind != "mase"), *found)
        self.metric = self._deciding_metric()

    def _deciding_metric(self) -> str:
        """Return the metric that decides which weights are best: that of the units in which the loss is."""
        by_series = self.scaled_by == "window" and len(self.columns.series) > 1
        if by_series and np.isfinite(self.mase_scale.values).any():
            return "mase"
        return "rmse" if self.targets == 1 else "scaled_rmse"

    def _targets(self, stops: Array) -> Array:
        """Return float64 (batch, horizon, targets), NaN where nothing was observed."""
        rows = stops[:, None] + np.arange(self.horizon)
        values = self.columns.values[:, : self.targets][rows]
        return np.where(self.columns.observed[:, : self.targets][rows], values, np.nan)

    def _cut(self, stops: Array) -> Batch:
        inputs, mask = self._inputs(stops)
        return Batch(
            inputs=inputs,
            targets=self._targets(stops),
            attention_mask=mask,
            units=self.mase_scale.values[self.columns.series_of(stops - 1)],
            scales=self._loss_scales(stops) if self.scaled_by == "window" else None,
        )

    def window_units(self, stops: Array) -> Array:
        """Return the deviation that each window's outputs are scaled by: float64 (batch, targets), in raw units.

        Where columns are scaled as a whole, it is the same for all windows: the deviation of the training rows.

        Args:
            stops: int64 (batch,): one past the last input row of each window, as in `stops`.
        """
        targets = self.targets
        if self.scaled_by == "column":
            scale = self._scaling.output_scale
            return np.broadcast_to(scale, (len(stops), targets)).copy()
        found = []
        for first in range(0, len(stops), 256):  # a long context would make one array too large
            inputs, mask = self._inputs(stops[first : first + 256])
            mean, scale = self._scaling.output_mean, self._scaling.output_scale
            found.append(window_statistics(inputs[:, :, :targets], mask, mean, scale)[1])
        return np.concatenate(found) if found else np.empty((0, targets))

    def _loss_scales(self, stops: Array) -> Array:
        """Return what errors are divided by in the loss: float64 (batch, targets).

        The window's deviation, but no less than `WINDOW_FLOOR` of what its series usually has: after a window
        that stands still one step would outweigh all other windows.
        """
        usual = self.series_deviation[self.columns.series_of(stops - 1), : self.targets]
        return np.fmax(self.window_units(stops), WINDOW_FLOOR * usual)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Add up squared and absolute errors of each target, where it is not NaN."""
        return forecast_tally(outputs, targets)

    def tally_batch(self, outputs: Array, batch: Batch) -> Tally:
        """Add up errors as `tally`, and absolute ones in the unit of each window's own series."""
        found = self.tally(outputs, batch.targets)
        return found | unit_tally(outputs, batch.targets, batch.units)

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``rmse``, ``mae`` and ``mase``; of several targets ``scaled_rmse``, ``mase``, and those of each."""
        names = self.columns.names[: self.targets]
        return forecast_metrics(tally, names, self.column_deviation[: self.targets])

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score repeating the last value and, where there is a season, the last season.

        The last season may lie before the context: the baseline sees all that came before, back to the last
        gap of the times. Where that is less than a season, the last value stands in, so that all baselines and
        the model are scored on the same windows. A missing value is the last one before it.
        """
        stops = self.evaluated_stops(split, samples)
        targets = self._targets(stops)
        last = np.broadcast_to(self._carried[stops - 1][:, None], targets.shape)
        units = self.mase_scale.values[self.columns.series_of(stops - 1)]

        def score(forecast: Array) -> Metrics:
            found = self.tally(forecast, targets)
            return self.metrics(found | unit_tally(forecast, targets, units))

        scores = {"naive_last": score(last)}
        if self.season is not None:
            ahead = np.arange(self.horizon)
            same = stops[:, None] + ahead - self.season * (ahead // self.season + 1)
            reached = self._history(stops) >= self.season
            seasonal = self._carried[np.where(reached[:, None], same, 0)]
            forecast = np.where(reached[:, None, None], seasonal, last)
            scores["seasonal_naive"] = score(forecast)
        return scores

    def forecasts(self, split: Split, samples: int, outputs: Array) -> Forecasts:
        """Return what prediction intervals are fitted on, of the windows of `evaluation`.

        Args:
            split: Which part.
            samples: Most windows, as in `evaluation`.
            outputs: (windows, horizon, targets) of a model or a baseline, in the order of `evaluation`.
        """
        stops = self.evaluated_stops(split, samples)
        deviations = []
        for first in range(0, len(stops), 128):  # a long context would make one array too large
            inputs, mask = self._inputs(stops[first : first + 128])
            deviations.append(window_deviations(inputs[:, :, : self.targets], mask))
        return Forecasts(
            outputs=outputs,
            targets=self._targets(stops),
            deviations=np.concatenate(deviations),
            series=self.columns.series_of(stops - 1),
            context=self.context,
        )

    def fit_intervals(
        self, validation: Forecasts, test: Forecasts
    ) -> tuple[Intervals | None, list[Finding]]:
        """Fit prediction intervals on validation errors and measure them on test ones, as `fit_intervals`."""
        available = self.available("validation")
        return fit_intervals(validation, test, names=self.columns.series, available=available)

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
            "mase_season": self.mase_scale.season,
            "mase_scale": self.mase_scale.typical(),
            "rows": rows,
            "origin": None if self.origin is None else [self.origin.number, self.origin.count],
        }
