"""Windows of rows before a given row, padded on the left where there are fewer."""

import abc
from collections.abc import Iterator
from typing import Any, Required, TypedDict

import numpy as np

from loopedge.data.columns import Columns, Missing
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.task import Array, Batch, Scaling, Split, Task, generator_of

__all__ = ["WindowOptions", "WindowTask", "check_sizes"]


class WindowOptions(TypedDict, total=False):
    """Keyword arguments that all tasks of windows share.

    Keys:
        context: Table rows of a window.
        min_context: Least table rows of history; a window with fewer than ``context`` is padded on the
            left and masked. Default: ``context``, so that there is no padding.
        missing: ``refuse`` missing values, ``interpolate`` them, or let the model know: ``indicator``.
        time_column: Column whose times must ascend; the model does not see it.
        group: Column that says which series a table row belongs to; the model does not see it.
        seed: Of the batches.
    """

    context: Required[int]
    min_context: int | None
    missing: Missing
    time_column: str | None
    group: str | None
    seed: int


class WindowTask(Task):
    """A task whose inputs are the ``context`` table rows that end before a row: its stop.

    Args:
        columns: One or several series; a window stays within one.
        context: As `WindowOptions`, like the next ones.
        min_context: Least rows of history.
        missing: How missing values were dealt with.
        time_column: Column by which the order of the table rows was checked.
        group: Column of the names of the series.
        seed: Of the batches.
        source: What errors call the data.
    """

    stops: dict[Split, Array]
    """Per split, int64: one past the last input row of each window."""

    def __init__(
        self,
        columns: Columns,
        *,
        context: int,
        min_context: int | None = None,
        missing: Missing = "refuse",
        time_column: str | None = None,
        group: str | None = None,
        seed: int = 0,
        source: str = "series",
    ) -> None:
        self.columns = columns
        self.context = context
        self.min_context = context if min_context is None else min_context
        self.missing: Missing = missing
        self.time_column = time_column
        self.group = group
        self.seed = seed
        self.source = source
        self._scaling: Scaling

    @property
    def window_options(self) -> WindowOptions:
        """The options that make another task of the same windows."""
        return {
            "context": self.context,
            "min_context": self.min_context,
            "missing": self.missing,
            "time_column": self.time_column,
            "group": self.group,
            "seed": self.seed,
        }

    @abc.abstractmethod
    def _cut(self, stops: Array) -> Batch:
        """Return the windows that end before ``stops``, and what is asked of them."""

    def _inputs(self, stops: Array) -> tuple[Array, Array | None]:
        """Return float32 (batch, context, columns) and, where windows may be short, their mask."""
        rows = stops[:, None] + np.arange(-self.context, 0)
        if self.min_context == self.context:
            return self.columns.values[rows].astype(np.float32), None
        kept = rows >= self.columns.first_rows(stops - 1)[:, None]
        inputs = self.columns.values[np.where(kept, rows, 0)].astype(np.float32)
        # Padding is masked; the mean also keeps it out of the ranges that int8 is calibrated on.
        inputs = np.where(kept[:, :, None], inputs, self._scaling.input_mean)
        return inputs, kept.astype(np.int64)

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
        stops = self._evaluated(split, samples)
        for first in range(0, len(stops), size):
            yield self._cut(stops[first : first + size])

    def _evaluated(self, split: Split, samples: int) -> Array:
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
        }

    def scaling(self) -> Scaling | None:
        """Return mean and standard deviation of the observed training values."""
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
