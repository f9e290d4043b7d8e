"""What a model says of a table: the values that follow, or a label, of each of its series."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option

__all__ = ["STEP", "Forecast"]

STEP = "step"
"""What the column of the steps is called where the table has no times: 1 follows the last table row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The values that follow each series of a table, or the label of each; docs/cli.md has the keys of its JSON.

    Args:
        model: The model's file.
        table: The table.
        group: Column of the names of the series; None: the table is one series.
        time_column: Column of the times; None: the table has none.
        series: Names of the series; one empty name where the table is one.
        rows: Table rows that the model saw of each.
        times: Of each series, as its file writes them: ``horizon`` times that follow, empty where no step holds for
            most table rows; or for labels the last one.
        targets: Columns that are forecast; none where labels are told.
        values: Float (series, horizon, targets) in raw units; None where labels are told.
        intervals: By level, 80 and 95 %, the lower and upper ends: float, each as ``values``; empty where the model
            has none.
        label: Column of the labels; None where values are forecast.
        classes: The labels that there are.
        probabilities: float64 (series, classes), the softmax of the logits; None where values are forecast.
        notes: What a person should know.
    """

    model: str
    table: str
    group: str | None
    time_column: str | None
    series: tuple[str, ...]
    rows: tuple[int, ...]
    times: tuple[tuple[str, ...], ...]
    targets: tuple[str, ...] = ()
    values: Array | None = None
    intervals: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)
    label: str | None = None
    classes: tuple[str, ...] = ()
    probabilities: Array | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return what it holds in one line."""
        what = ", ".join(self.targets) or self.label
        number = len(self.series)
        ahead = "" if self.values is None else f", {self.values.shape[1]} steps ahead"
        of = "one series" if number == 1 else f"{number} series"
        return f"<Forecast of {what}: {of} of {self.table}{ahead}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The most likely label of each series; none where values are forecast."""
        if self.probabilities is None:
            return ()
        return tuple(self.classes[place] for place in self.probabilities.argmax(axis=1))

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `records`.

        Raises:
            InputError: Two columns would have one name.
        """
        names = [] if self.group is None else [self.group]
        if self.values is None:
            names += [] if self.time_column is None else [self.time_column]
            names += [self.label or "label", *(f"probability_{name}" for name in self.classes)]
        else:
            names.append(self.time_column if self.time_column and self.times else STEP)
            for target in self.targets:
                names.append(target)
                for level in self.intervals:
                    names += [f"{target}_lo{level}", f"{target}_hi{level}"]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise InputError(
                f"two columns of the forecast would be called {repeated!r}",
                hint=f"write arrays: {option('path', 'forecast.npz')}",
            )
        return tuple(names)

    def records(self) -> Iterator[tuple[Any, ...]]:
        """Yield a row for each step of each series, or for each label: texts, whole steps and numpy's numbers."""
        labels = self.labels
        for number, name in enumerate(self.series):
            first = [] if self.group is None else [name]
            times = self.times[number] if self.times else ()
            if self.values is None:
                assert self.probabilities is not None  # one of the two is there
                last = [] if self.time_column is None else [times[0]]
                yield (*first, *last, labels[number], *self.probabilities[number])
                continue
            for step in range(self.values.shape[1]):
                yield (*first, times[step] if times else step + 1, *self._step(number, step))

    def _step(self, number: int, step: int) -> Iterator[Any]:
        """Yield the values of a step, each with the ends of its intervals."""
        assert self.values is not None  # `records` asks for no step of labels
        for place in range(len(self.targets)):
            yield self.values[number, step, place]
            for low, high in self.intervals.values():
                yield low[number, step, place]
                yield high[number, step, place]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of docs/cli.md."""
        labels = self.labels or (None,) * len(self.series)
        return {
            "table": self.table,
            "group": self.group,
            "time_column": self.time_column,
            "targets": list(self.targets),
            "label": self.label,
            "series": [self._series(number, label) for number, label in enumerate(labels)],
        }

    def _series(self, number: int, label: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": None if self.group is None else self.series[number],
            "rows": self.rows[number],
            "times": list(self.times[number]) if self.times else [],
        }
        if self.values is None:
            assert self.probabilities is not None  # one of the two is there
            likely = dict(zip(self.classes, self.probabilities[number].tolist(), strict=True))
            return found | {"label": label, "probabilities": likely}
        return found | {
            "values": dict(zip(self.targets, self.values[number].T.tolist(), strict=True)),
            "intervals": {
                str(level): {
                    target: {
                        "low": low[number, :, place].tolist(),
                        "high": high[number, :, place].tolist(),
                    }
                    for place, target in enumerate(self.targets)
                }
                for level, (low, high) in self.intervals.items()
            },
        }


def softmax(logits: Array) -> Array:
    """Return float64 shares that add up to 1 along the last axis."""
    wide = logits.astype(np.float64)
    weights = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: Array = weights / weights.sum(axis=-1, keepdims=True)
    return shares
