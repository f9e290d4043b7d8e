"""Windows of rows before a given row, padded on the left where there are fewer."""

import abc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Required, TypedDict, get_args

import numpy as np

from loopedge.data.tables.column_findings import (
    constant_findings,
    drift_findings,
    level_findings,
    stand_in_findings,
)
from loopedge.data.tables.columns import Columns, Missing, fit_scaling
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.precision import judge_precision, precision_findings
from loopedge.data.tables.timeline.frequency import AUTO, frequency_option
from loopedge.data.tables.timeline.gaps import GapRule, other_step
from loopedge.data.tables.window_scaling import (
    deviations_by_series,
    nearby_mean,
    typical_deviation,
)
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.task import Array, Batch, Scaling, Split, Task, generator_of

__all__ = ["ScaledBy", "WindowOptions", "WindowTask", "check_sizes"]

ScaledBy = Literal["column", "window"]
"""Whose mean and deviation scale the columns: the training part's, or those of each window."""


class WindowOptions(TypedDict, total=False):
    """Keyword arguments that all tasks of windows share.

    Keys:
        context: Table rows of a window.
        min_context: Least table rows of history; a window with fewer than ``context`` is padded on the
            left and masked. Default: ``context``, so that there is no padding.
        missing: ``refuse`` missing values, ``interpolate`` them, or let the model know: ``indicator``.
        time_column: Column whose times must ascend; the model does not see it.
        group: Column that says which series a table row belongs to; the model does not see it.
        frequency: Grid of times on which each series is put: ``auto``, or a name such as ``15min``, ``D``, ``MS``;
            default: the table rows as they are.
        gaps: Without a frequency: ``split`` windows at gaps of the times, ``cross`` them, or ``refuse`` the table.
        form: How the table is written down.
        scaling: ``column``: by mean and deviation of each column's training rows; ``window``: by those of each
            window's own rows, for series at different levels and columns that drift.
        wide: Whether the model takes and gives float64; default: where float32 cannot tell the values of a
            column apart (`loopedge.data.tables.precision`).
        seed: Of the batches.
    """

    context: Required[int]
    min_context: int | None
    missing: Missing
    time_column: str | None
    group: str | None
    frequency: str | None
    gaps: GapRule
    form: TableFormat
    scaling: ScaledBy
    wide: bool | None
    seed: int


class WindowTask(Task):
    """A task whose inputs are the ``context`` table rows that end before a row: its stop.

    Args:
        columns: One or several series; a window stays within a piece of one.
        context: As `WindowOptions`, like the next ones.
        min_context: Least rows of history.
        missing: How missing values were dealt with.
        time_column: Column by which the order of the table rows was checked.
        group: Column of the names of the series.
        frequency: Grid of times on which the series were put.
        gaps: What happened at gaps of the times.
        form: How the table is written down.
        scaling: Whose mean and deviation scale the columns.
        wide: Whether inputs are float64.
        seed: Of the batches.
        source: What errors call the data.

    Raises:
        InputError: ``scaling`` or ``gaps`` is not known, or there are no times for what is asked.
    """

    findings: tuple[Finding, ...]
    """What a person should know of the table; `notes` has a line of each."""
    stops: dict[Split, Array]
    """Per split, int64: one past the last input row of each window."""
    scaled_by: ScaledBy
    """Whose mean and deviation scale the columns."""
    wide: bool
    """Whether inputs are float64, because float32 cannot tell the values of a column apart."""
    column_deviation: Array
    """float64 (columns,): standard deviation of the observed training values."""
    series_deviation: Array
    """float64 (series, columns), where windows scale: the median deviation of a series' training windows."""

    def __init__(
        self,
        columns: Columns,
        *,
        context: int,
        min_context: int | None = None,
        missing: Missing = "refuse",
        time_column: str | None = None,
        group: str | None = None,
        frequency: str | None = None,
        gaps: GapRule = "split",
        form: TableFormat | None = None,
        scaling: ScaledBy = "column",
        wide: bool | None = None,
        seed: int = 0,
        source: str = "series",
    ) -> None:
        self.columns = columns
        self.context = context
        self.min_context = context if min_context is None else min_context
        self.missing: Missing = missing
        self.time_column = time_column
        self.group = group
        self.frequency, self.gaps = frequency, gaps
        self.form = form or TableFormat()
        self.findings = columns.findings
        self.seed = seed
        self.source = source
        if scaling not in get_args(ScaledBy):
            raise InputError(
                f"{option_name('scaling')} is {scaling!r}, column or window is needed",
                hint=option("scaling", "window"),
            )
        self.scaled_by: ScaledBy = scaling
        self.wide = bool(wide)
        self._wide = wide
        self._scaling: Scaling
        self._left_out = 0
        self._check_times()

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # they follow from the findings
        """What a person should know of the data, a line each."""
        return tuple(finding.line for finding in self.findings)

    @property
    def window_options(self) -> WindowOptions:
        """The options that make another task of the same windows."""
        return {
            "context": self.context,
            "min_context": self.min_context,
            "missing": self.missing,
            "time_column": self.time_column,
            "group": self.group,
            "frequency": self.frequency,
            "gaps": self.gaps,
            "form": self.form,
            "scaling": self.scaled_by,
            "wide": self._wide,
            "seed": self.seed,
        }

    @abc.abstractmethod
    def _cut(self, stops: Array) -> Batch:
        """Return the windows that end before ``stops``, and what is asked of them."""

    def _fit(self, training: Array, tested: Array, *, targets: int) -> tuple[Array, Array]:
        """Judge the columns, and fit what scales them: mean and scale, float64 (columns,).

        Sets `wide` and adds to `findings`.

        Args:
            training: bool (table rows,): which of them are for training.
            tested: bool (table rows,): which are for testing.
            targets: How many of the columns are targets.

        Raises:
            InputError: float32 cannot tell the values of a column apart even once they are centred.
        """
        columns, by_window = self.columns, self.scaled_by == "window"
        mean, deviation = fit_scaling(columns, training)
        self.wide, precision = precision_findings(
            columns.names,
            [
                judge_precision(columns, place, float(mean[place]), by_window=by_window)
                for place in range(len(columns.names))
            ],
            targets=targets,
            source=self.source,
            grouped=len(columns.series) > 1,
            wide=self._wide,
        )
        self.findings += (
            *stand_in_findings(columns),
            *constant_findings(columns, training, targets=targets),
            *precision,
            *drift_findings(columns, training, tested, targets=targets, by_window=by_window),
            *level_findings(columns, training, by_window=by_window),
        )
        self.column_deviation = deviation
        if not by_window:
            return mean, deviation
        self.series_deviation = deviations_by_series(columns, self.stops["train"], self.context)
        scale = typical_deviation(self.series_deviation, deviation)
        if not self.wide:
            mean = nearby_mean(mean, scale)
        return mean, scale

    def _inputs(self, stops: Array) -> tuple[Array, Array | None]:
        """Return float32 (batch, context, columns) and, where windows may be short, their mask.

        The inputs of a wide model are float64.
        """
        values, kept = self.columns.windows(stops, self.context, self._scaling.input_mean)
        inputs = values.astype(np.float64 if self.wide else np.float32)
        return inputs, None if self.min_context == self.context else kept.astype(np.int64)

    def _check_times(self) -> None:
        """Refuse options that act on times where no column holds any."""
        if self.gaps not in get_args(GapRule):
            raise InputError(
                f"{option_name('gaps')} is {self.gaps!r}, {', '.join(get_args(GapRule))} are known",
                hint=option("gaps", "split"),
            )
        wanted = frequency_option(self.frequency or AUTO)
        if self.frequency is None:
            if self.gaps != "refuse":
                return
            wanted = option("gaps", self.gaps)
        if self.time_column is None:
            raise InputError(
                f"{self.source}: {wanted} needs the times of the rows",
                hint=option("time_column", "COLUMN"),
            )

    def _frequency_name(self) -> str | None:
        """Return the frequency that another table must have, also where it was found in this one."""
        times = self.columns.times
        if self.frequency is None or times is None or times.frequency is None:
            return self.frequency
        return times.frequency.name

    def compare_step(self, step: str | None) -> None:
        """Add to the findings where the rows follow each other by another step than those that a model was trained on."""
        other = other_step(self.source, self.columns.times, step)
        if other is not None:
            self.findings += (other,)

    def _step_name(self) -> str | None:
        """Return the frequency by which most table rows follow each other; None: no times, or none does."""
        times = self.columns.times
        return None if times is None or times.frequency is None else times.frequency.name

    def _history(self, stops: Array) -> Array:
        """Return how many rows of its piece stand before each stop."""
        history: Array = stops - self.columns.piece_starts(stops - 1)
        return history

    def _within_pieces(self, stops: Array, ahead: int) -> Array:
        """Return the stops whose window, and ``ahead`` rows behind it, stay within a piece."""
        if self.columns.pieces is None or not len(stops):
            return stops
        inside = self._history(stops) >= self.min_context
        inside &= self.columns.piece_ends(stops - 1) >= stops + ahead
        self._left_out += int((~inside).sum())
        return stops[inside]

    def _say_left_out(self) -> None:
        """Say in the finding of gaps how many windows would cross one."""
        if self.columns.pieces is None:
            return
        windows = sum(map(len, self.stops.values())) + self._left_out
        count = f"{self._left_out:,} of {windows:,} windows are left out"
        self.findings = tuple(
            replace(finding, message=f"{finding.message}: {count}")
            if finding.kind == "gap"
            else finding
            for finding in self.findings
        )

    def _gaps_error(self, split: str, ahead: int) -> InputError | None:
        """Return why a split has no window, where that is because of gaps."""
        if self.columns.pieces is None or not self._left_out:
            return None
        pieces = self.columns.piece_bounds
        times = self.columns.times
        hint = f"{option('gaps', 'cross')} takes rows as steps"
        if times is not None and times.frequency is not None:
            grid = f"{frequency_option(times.frequency.name)} {option('missing', 'interpolate')}"
            hint = f"{grid} inserts the missing rows, {hint}"
        need = f"context {self.min_context}" + (f" and horizon {ahead}" if ahead else "")
        return InputError(
            f"{self.source} has no {split} window: gaps of the times in column {self.time_column!r} leave "
            f"{len(pieces) - 1:,} pieces of at most {int(np.diff(pieces).max()):,} rows, and a window "
            f"({need}) stays within one",
            hint=hint,
        )

    def available(self, split: Split) -> int:
        """Return how many windows a split has."""
        return len(self.stops[split])

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` windows, with replacement."""
        stops = self.stops[split]
        return self._cut(
            stops[generator_of(self.seed, split, step).integers(len(stops), size=size)]
        )

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield every window of a split, or ``samples`` evenly spaced ones where there are more."""
        stops = self.evaluated_stops(split, samples)
        for first in range(0, len(stops), size):
            yield self._cut(stops[first : first + size])

    def evaluated_stops(self, split: Split, samples: int) -> Array:
        """Return where the windows of `evaluation` end: int64 (windows,), one past the last row of each."""
        stops = self.stops[split]
        if len(stops) > samples:
            stops = stops[np.linspace(0, len(stops) - 1, samples).round().astype(np.int64)]
        return stops

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that reads the last position."""
        return {
            "features": len(self.columns.names),
            "read": "last",
            "causal": True,
            "max_length": self.context,
            "min_length": self.min_context,
            "padding": self.min_context < self.context,
            "missing": self.missing == "indicator",
            "wide": self.wide,
            "scaling": self.scaled_by,
        }

    def scaling(self) -> Scaling | None:
        """Return mean and standard deviation of the observed training values.

        Where each window is scaled by itself, the scale is a typical deviation of the training windows.
        """
        return self._scaling

    def describe(self) -> dict[str, Any]:
        """Return name, columns, sizes, split, scaling and metric; no path."""
        return {
            "name": self.name,
            "kind": self.kind,
            "context": self.context,
            "min_context": self.min_context,
            "missing": self.missing,
            "time_column": self.time_column,
            "group": self.group,
            "frequency": self._frequency_name(),
            "gaps": self.gaps,
            "step": self._step_name(),
            "form": self.form.to_json(),
            "scaling": self.scaled_by,
            "wide": self.wide,
            "series": len(self.columns.bounds) - 1,
            "windows": {split: len(stops) for split, stops in self.stops.items()},
            "mean": self._scaling.input_mean.tolist(),
            "scale": self._scaling.input_scale.tolist(),
            "seed": self.seed,
            "metric": self.metric,
        }


def check_sizes(sizes: dict[str, int | None], *, context: int, min_context: int | None) -> None:
    """Refuse sizes below 1, and a least context above the context.

    Raises:
        InputError: The message names the option.
    """
    for name, value in {"context": context, "min_context": min_context, **sizes}.items():
        if value is not None and value < 1:
            raise InputError(f"{option_name(name)} is {value}, at least 1 is needed")
    if min_context is not None and min_context > context:
        raise InputError(
            f"{option_name('min_context')} is {min_context}, at most the context of {context} table rows is allowed",
            hint=option("min_context", context),
        )
