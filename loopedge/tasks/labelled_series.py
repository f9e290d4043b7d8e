"""Classification from a table: the label of a window's last row, or of a whole series."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from loopedge.data.columns import Columns, fit_scaling, make_columns
from loopedge.data.tables import Selection, read_table
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.confusion import confusion_metrics, confusion_tally
from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.splits import split_bounds, split_series
from loopedge.tasks.task import SPLITS, Array, Batch, Scaling, Split
from loopedge.tasks.windows import WindowOptions, WindowTask, check_sizes

__all__ = ["LabelledSeriesTask", "sort_labels"]


class LabelledSeriesTask(WindowTask):
    """Tell the label of a window from its ``context`` rows.

    Without a group the label is the one of the window's last row; windows are split by time, 70 %
    train, 15 % validation, 15 % test. With a group each series is one sample: its last ``context``
    rows; whole series are split 70, 15 and 15 % within each class.

    A row without a label is never asked for. Where values were interpolated, a window ends at a row
    that was observed, so that none of its inputs was interpolated from a later one.

    Args:
        columns: Inputs, labels, and one or several series.
        label: Column of the labels.
        classes: The classes of a model that is trained already; default: those of the data.
        source: What errors call the data.
        window: What the model sees, as `WindowOptions`; with a ``group`` each series is one sample.

    Raises:
        InputError: There are too few rows, only one class, a class that does not occur in training,
            or a label that is not a class.
    """

    name = "series-labels"
    kind = "classes"
    metric = "accuracy"

    def __init__(
        self,
        columns: Columns,
        *,
        label: str,
        classes: Sequence[str] | None = None,
        source: str = "series",
        **window: Unpack[WindowOptions],
    ) -> None:
        check_sizes({}, context=window["context"], min_context=window.get("min_context"))
        super().__init__(columns, source=source, **window)
        self.label = label
        if not columns.labels:
            raise InputError(f"{source}: column {label!r} holds no label at all")
        if classes is None:
            self.classes, self._codes = sort_labels(columns)
        else:
            self.classes, self._codes = list(classes), self._find_classes(columns, classes)
        self.stops = self._whole_series() if self.group is not None else self._windows_by_time()
        self.counts = {split: self._count(split) for split in SPLITS}
        self._check_splits()
        if classes is None:
            self._check_classes()
        mean, scale = fit_scaling(columns, self._training_rows())
        outputs = len(self.classes)
        self._scaling = Scaling(
            input_mean=mean,
            input_scale=scale,
            output_mean=np.zeros(outputs, np.float32),
            output_scale=np.ones(outputs, np.float32),
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        label: str,
        covariates: Sequence[str],
        classes: Sequence[str] | None = None,
        **window: Unpack[WindowOptions],
    ) -> "LabelledSeriesTask":
        """Read the task from a CSV file with a header, or a Parquet file, oldest row first.

        Args:
            path: The file.
            label: Column of the labels, texts or numbers.
            covariates: Columns of numbers that the model sees.
            classes: The classes of a model that is trained already; default: those of the data.
            window: What the model sees, as `WindowOptions`: ``context``, and ``min_context``, ``missing``,
                ``time_column``, ``group``, ``seed``. With a ``group`` each series is one sample, with one
                label.

        Raises:
            InputError: The file, a column, a value, the order or the labels cannot be used.
        """
        if not covariates:
            raise InputError(
                "a classification needs a column that the model sees",
                hint=option("covariates", "COLUMN"),
            )
        table = read_table(
            path,
            Selection(
                numbers=tuple(covariates),
                label=label,
                group=window.get("group"),
                time=window.get("time_column"),
            ),
        )
        task = cls(
            make_columns(table, missing=window.get("missing", "refuse")),
            label=label,
            classes=classes,
            source=table.source,
            **window,
        )
        task.input_files = (Path(path),)
        return task

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "LabelledSeriesTask":
        """Rebuild the task from its description and its table."""
        if data is None:
            raise InputError(
                "a series needs its data", hint=f"name the table with {option_name('data')}"
            )
        return cls.from_file(
            data,
            label=description["label"],
            covariates=description["covariates"],
            context=description["context"],
            min_context=description["min_context"],
            missing=description["missing"],
            time_column=description["time_column"],
            group=description["group"],
            classes=description["classes"],
            seed=seed,
        )

    def _find_classes(self, columns: Columns, classes: Sequence[str]) -> Array:
        """Return the place of each row's label in given classes: int64 (rows,), -1 where there is none.

        A label is looked for as a text, then, where all classes are numbers, as a number: what the
        model was trained on decides that, not the labels that this table happens to hold.
        """
        by_text = {name: place for place, name in enumerate(classes)}
        by_number = {_number(name): place for place, name in enumerate(classes)}
        if None in by_number:
            by_number = {}
        places = []
        for text in columns.labels:
            place = by_text.get(text, by_number.get(_number(text)))
            if place is None:
                raise InputError(
                    f"{self.source}: label {text!r} of column {self.label!r} is not a class of the "
                    f"model; its classes are {', '.join(classes)}"
                )
            places.append(place)
        codes: Array = np.array([*places, -1], np.int64)[columns.codes]  # a missing label stays -1
        return codes

    def _windows_by_time(self) -> dict[Split, Array]:
        rows = len(self.columns.values)
        stops: dict[Split, Array] = {}
        for split, bounds in split_bounds(rows).items():
            first = max(bounds.first + 1, self.min_context)
            found = np.arange(first, bounds.end + 1, dtype=np.int64)
            usable = self._codes[found - 1] >= 0
            if self.missing != "indicator":
                usable &= self.columns.observed[found - 1].all(axis=1)
            stops[split] = found[usable]
        return stops

    def _whole_series(self) -> dict[Split, Array]:
        names, bounds = self.columns.series, self.columns.bounds
        labels = np.full(len(names), -1, np.int64)
        for number, (first, end) in enumerate(self.columns.spans()):
            found = np.unique(self._codes[first:end])
            found = found[found >= 0]
            if len(found) > 1:
                both = " and ".join(repr(self.classes[code]) for code in found[:2])
                raise InputError(
                    f"{self.source}: {self.group} {names[number]!r} has the labels {both}; "
                    "a whole series needs one",
                    hint=f"leave out {option_name('group')} to classify each row's window",
                )
            if len(found):
                labels[number] = found[0]
            self._codes[first:end] = labels[number]
        sizes = np.diff(bounds)
        short = np.flatnonzero(sizes < self.min_context)
        if len(short):
            shortest = int(sizes.argmin())
            raise InputError(
                f"{self.source}: {len(short)} of {len(names)} series have fewer than "
                f"{self.min_context} rows, the shortest, {names[shortest]!r}, {sizes[shortest]}",
                hint=option("min_context", sizes[shortest]),
            )
        labelled = np.flatnonzero(labels >= 0)
        chosen = split_series([names[number] for number in labelled], labels[labelled])
        return {split: bounds[labelled[numbers] + 1] for split, numbers in chosen.items()}

    def _count(self, split: Split) -> Array:
        return np.bincount(self._codes[self.stops[split] - 1], minlength=len(self.classes))

    def _check_splits(self) -> None:
        for split in SPLITS:
            if len(self.stops[split]):
                continue
            if self.group is not None:
                stops = np.concatenate(list(self.stops.values()))
                classes = len(np.unique(self._codes[stops - 1]))
                raise InputError(
                    f"{self.source} has no {split} series: {len(stops)} with a label of {classes} "
                    f"classes are too few, at least {classes + 2} are needed"
                )
            raise InputError(
                f"{self.source} has no {split} window: {len(self.columns.values)} rows are too few "
                f"for a context of {self.min_context}, or too many values are missing",
                hint=f"lower {option_name('context')}",
            )

    def _check_classes(self) -> None:
        if len(self.classes) < 2:
            raise InputError(
                f"{self.source}: column {self.label!r} holds the class "
                f"{', '.join(map(repr, self.classes))} alone, at least 2 are needed"
            )
        unit = "window" if self.group is None else "series"
        for number, name in enumerate(self.classes):
            if self.counts["train"][number]:
                continue
            seen = [
                f"{int(self.counts[split][number])} of {split}"
                for split in SPLITS[1:]
                if self.counts[split][number]
            ]
            where = " and ".join(seen) or "no split"
            raise InputError(
                f"{self.source}: class {name!r} of column {self.label!r} never occurs in training "
                f"({unit}s: {where})",
                hint="add rows of the class to the first 70 %, or leave the class out",
            )

    def _training_rows(self) -> Array:
        rows = np.zeros(len(self.columns.values), bool)
        if self.group is None:
            rows[: split_bounds(len(rows))["train"].end] = True
            return rows
        for stop in self.stops["train"]:
            rows[int(self.columns.first_rows(stop - 1)) : stop] = True
        return rows

    def _cut(self, stops: Array) -> Batch:
        inputs, mask = self._inputs(stops)
        targets = self._codes[stops - 1].astype(np.int64)
        return Batch(inputs=inputs, targets=targets, attention_mask=mask)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Count answers by class and by what the model said."""
        return confusion_tally(outputs, targets)

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``accuracy`` and ``macro_f1``."""
        return confusion_metrics(tally)

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score the most frequent class of the training part."""
        targets = self._codes[self._evaluated(split, samples) - 1].astype(np.int64)
        logits = np.zeros((len(targets), len(self.classes)))
        logits[:, self.counts["train"].argmax()] = 1.0
        return {"most_frequent": self.score(logits, targets)}

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that gives logits at the last position."""
        return {**super().model_fields(), "outputs": len(self.classes), "classify": True}

    def describe(self) -> dict[str, Any]:
        """Return name, columns, classes and their counts, sizes, split and scaling; no path."""
        return {
            **super().describe(),
            "label": self.label,
            "covariates": list(self.columns.names),
            "classes": self.classes,
            "class_counts": {
                split: dict(zip(self.classes, counts.tolist(), strict=True))
                for split, counts in self.counts.items()
            },
        }


def sort_labels(columns: Columns) -> tuple[list[str], Array]:
    """Return the classes in order, and the class of each row: int64 (rows,), -1 where there is none.

    Where all labels are numbers they are compared as numbers: 1 and 1.0 are one class.
    """
    numbers = [_number(text) for text in columns.labels]
    if all(number is not None for number in numbers):
        values = [number for number in numbers if number is not None]
        order = sorted(set(values))
        names = [str(int(value)) if value == int(value) else repr(value) for value in order]
        places = [order.index(value) for value in values]
    else:
        names = sorted(columns.labels)
        places = [names.index(text) for text in columns.labels]
    codes = np.array([*places, -1], np.int64)[columns.codes]
    return names, codes


def _number(text: str) -> int | float | None:
    if "_" in text:  # Python reads 1_000, no table means it
        return None
    for kind in (int, float):  # an integer of many digits is not a float
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        return value if isinstance(value, int) or math.isfinite(value) else None
    return None
