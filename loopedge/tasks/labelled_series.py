"""Classification from a table: the label of a window's last row, or of a whole series."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from loopedge.data.tables.columns import Columns, make_columns
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import expand_names
from loopedge.data.tables.reading import Selection, find_unread_times, read_table
from loopedge.data.tables.texts import plain_number
from loopedge.errors import InputError
from loopedge.options import option, option_name
from loopedge.tasks.confusion import confusion_metrics, confusion_tally
from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.splits import split_bounds, split_series
from loopedge.tasks.task import SPLITS, Array, Batch, Scaling, Split
from loopedge.tasks.windows import WindowOptions, WindowTask, check_sizes

__all__ = ["LabelledSeriesTask", "find_classes", "sort_labels"]

MOST_NAMED = 4
"""Labels that a finding names."""

FEW_CLASSES = 10
"""From so many classes on there are two samples of each at least, on average: else a column holds none."""


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
        merged_classes: The model is of before: labels that are equal as numbers are one of its classes.
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
        merged_classes: bool = False,
        source: str = "series",
        **window: Unpack[WindowOptions],
    ) -> None:
        check_sizes({}, context=window["context"], min_context=window.get("min_context"))
        super().__init__(columns, source=source, **window)
        self.label = label
        self._merged = merged_classes
        if not columns.labels:
            raise InputError(f"{source}: column {label!r} holds no label at all")
        if classes is None:
            self.classes, self._codes = sort_labels(columns)
        else:
            self.classes, self._codes = list(classes), self._find_classes(columns, classes)
        self.stops = self._whole_series() if self.group is not None else self._windows_by_time()
        if self.group is None:  # else a series is one window, and none is left out
            self._say_left_out()
        self.counts = {split: self._count(split) for split in SPLITS}
        self._check_splits()
        if classes is None:
            self._check_classes()
        mean, scale = self._fit(self._rows_of("train"), self._rows_of("test"), targets=0)
        outputs = len(self.classes)
        self._scaling = Scaling(
            input_mean=mean,
            input_scale=scale,
            output_mean=np.zeros(outputs),
            output_scale=np.ones(outputs),
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        label: str,
        covariates: Sequence[str],
        classes: Sequence[str] | None = None,
        merged_classes: bool = False,
        **window: Unpack[WindowOptions],
    ) -> "LabelledSeriesTask":
        """Read the task from a CSV file with a header, or a Parquet file, oldest row first.

        Args:
            path: The file.
            label: Column of the labels, texts or numbers.
            covariates: Columns of numbers that the model sees; patterns, as `expand_names` reads them.
            classes: The classes of a model that is trained already; default: those of the data.
            merged_classes: The model is of before: labels that are equal as numbers are one of its classes.
            window: What the model sees, as `WindowOptions`: ``context``, and ``min_context``, ``missing``,
                ``time_column``, ``group``, ``frequency``, ``gaps``, ``form``, ``scaling``,
                ``seed``. With a ``group`` each series is one sample, with one
                label.

        Raises:
            InputError: The file, a column, a value, the order or the labels cannot be used.
        """
        if not covariates:
            raise InputError(
                "a classification needs a column that the model sees",
                hint=option("covariates", "COLUMN"),
            )
        group, time, form = window.get("group"), window.get("time_column"), window.get("form")
        covariates = expand_names(path, covariates, without=(label, group, time), form=form)
        selection = Selection(numbers=covariates, label=label, group=group, time=time)
        table = read_table(path, selection, form)
        if classes is None:
            unread = find_unread_times(path, selection, form)
            table = replace(table, findings=(*table.findings, *unread))
        task = cls(
            make_columns(
                table,
                missing=window.get("missing", "refuse"),
                frequency=window.get("frequency"),
                gaps=window.get("gaps", "split"),
            ),
            label=label,
            classes=classes,
            merged_classes=merged_classes,
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
        task = cls.from_file(
            data,
            label=description["label"],
            covariates=description["covariates"],
            context=description["context"],
            min_context=description["min_context"],
            missing=description["missing"],
            time_column=description["time_column"],
            group=description["group"],
            frequency=description.get("frequency"),
            gaps=description.get("gaps", "cross"),  # as before there was a choice
            form=TableFormat.from_json(description.get("form", {})),
            scaling=description.get("scaling", "column"),
            wide=description.get("wide", False),
            classes=description["classes"],
            merged_classes="form" not in description,
            seed=seed,
        )
        task.compare_step(description.get("step"))
        return task

    def at_context(self, context: int, *, min_context: int | None = None) -> "LabelledSeriesTask":
        """Return the task of the same table that sees another number of rows.

        Args:
            context: Table rows of a window.
            min_context: Least table rows of history; default: the context.

        Raises:
            InputError: There are too few rows.
        """
        window = self.window_options
        window["context"], window["min_context"] = context, min_context
        task = LabelledSeriesTask(
            self.columns,
            label=self.label,
            source=self.source,
            **window,
        )
        task.input_files = self.input_files
        return task

    def _find_classes(self, columns: Columns, classes: Sequence[str]) -> Array:
        """Return the place of each row's label in known classes: int64 (rows,), -1 where there is none."""
        found = find_classes(columns.labels, classes, merged=self._merged)
        unknown = next((text for text in columns.labels if text not in found), None)
        if unknown is not None:
            raise InputError(
                f"{self.source}: label {unknown!r} of column {self.label!r} is not a class of the "
                f"model; its classes are {', '.join(classes)}"
            )
        places = [found[text] for text in columns.labels]
        others = [
            (text, place)
            for text, place in zip(columns.labels, places, strict=True)
            if text != classes[place]
        ]
        if others:
            shown = ", ".join(
                f"{text!r} as {classes[place]!r}" for text, place in others[:MOST_NAMED]
            )
            more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
            self.findings = (
                *self.findings,
                Finding(
                    kind="label",
                    message=f"labels of column {self.label!r} are taken as classes of the model that are equal as "
                    f"numbers: {shown}{more}",
                ),
            )
        codes: Array = np.array([*places, -1], np.int64)[columns.codes]  # a missing label stays -1
        return codes

    def _windows_by_time(self) -> dict[Split, Array]:
        rows = len(self.columns.values)
        stops: dict[Split, Array] = {}
        for split, bounds in split_bounds(rows).items():
            first = max(bounds.first + 1, self.min_context)
            found = self._within_pieces(np.arange(first, bounds.end + 1, dtype=np.int64), 0)
            usable = self._codes[found - 1] >= 0
            if self.missing != "indicator":
                usable &= self.columns.observed[found - 1].all(axis=1)
            stops[split] = found[usable]
        return stops

    def _whole_series(self) -> dict[Split, Array]:
        names = self.columns.series
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
        ends = self._last_windows()
        labelled = np.flatnonzero(labels >= 0)
        chosen = split_series([names[number] for number in labelled], labels[labelled])
        return {split: ends[labelled[numbers]] for split, numbers in chosen.items()}

    def _last_windows(self) -> Array:
        """Return one past the last row of each series' last window that crosses no gap: int64 (series,)."""
        bounds, pieces = self.columns.bounds, self.columns.piece_bounds
        sizes = np.diff(pieces)
        series = np.searchsorted(bounds, pieces[:-1], side="right") - 1
        longest = np.zeros(len(bounds) - 1, np.int64)
        np.maximum.at(longest, series, sizes)
        self._check_long_enough(longest)
        usable = sizes >= self.min_context
        ends: Array = np.zeros(len(bounds) - 1, np.int64)
        np.maximum.at(ends, series[usable], pieces[1:][usable])
        earlier = int((ends < bounds[1:]).sum())
        if earlier:
            message = (
                f"{earlier:,} of {len(ends):,} series have fewer than {self.min_context} rows behind their last gap: "
                "the last rows before a gap are seen"
            )
            self.findings += (Finding(kind="gap", message=message),)
        return ends

    def _check_long_enough(self, rows: Array) -> None:
        """Refuse series of which no piece is as long as a window."""
        short = np.flatnonzero(rows < self.min_context)
        if not len(short):
            return
        names, shortest = self.columns.series, int(rows.argmin())
        within, cross = "", ""
        if (np.diff(self.columns.bounds)[short] >= self.min_context).any():
            within = " without a gap of the times"
            cross = f", or {option('gaps', 'cross')}, or a {option_name('frequency')} with {option('missing', 'interpolate')}"
        raise InputError(
            f"{self.source}: {len(short)} of {len(names)} series have fewer than "
            f"{self.min_context} rows{within}, the shortest, {names[shortest]!r}, {rows[shortest]}",
            hint=option("min_context", rows[shortest]) + cross,
        )

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
            if (error := self._gaps_error(split, 0)) is not None:
                raise error
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
        samples = int(sum(counts.sum() for counts in self.counts.values()))
        if len(self.classes) > max(FEW_CLASSES, samples // 2):
            raise InputError(
                f"{self.source}: column {self.label!r} holds {len(self.classes)} different labels for {samples} {unit}s; "
                "a class is learned from several",
                hint=f"name another column with {option_name('classify')}: this one looks like an id or a number",
            )
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

    def _rows_of(self, split: Split) -> Array:
        """Return which table rows are of a split: bool (table rows,)."""
        rows = np.zeros(len(self.columns.values), bool)
        if self.group is None:
            bounds = split_bounds(len(rows))[split]
            rows[0 if split == "train" else bounds.first : bounds.end] = True
            return rows
        for stop in self.stops[split]:
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
        targets = self._codes[self.evaluated_stops(split, samples) - 1].astype(np.int64)
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

    Labels are texts, 007 and 7 are two classes. Where all are numbers they are ordered as numbers.
    """
    names = sorted(columns.labels)
    numbers = [plain_number(text) for text in names]
    if all(number is not None for number in numbers):
        names.sort(
            key=lambda text: plain_number(text) or 0
        )  # a stable sort: equal ones stay in order
    places = {text: place for place, text in enumerate(names)}
    codes = np.array([*(places[text] for text in columns.labels), -1], np.int64)[columns.codes]
    return names, codes


def find_classes(
    labels: Sequence[str], classes: Sequence[str], *, merged: bool = False
) -> dict[str, int]:
    """Return the place of each label among the classes of a model, for those that are found.

    A label is looked for as a text. Where all classes are numbers, one that is not found may be equal to a single class as
    a number, and no other label of the table be so too.

    Args:
        labels: Different texts.
        classes: Of the model.
        merged: Several labels may be one class: files of before held equal numbers as one.
    """
    found = {text: place for place, text in enumerate(classes)}
    by_number: dict[int | float | None, list[int]] = defaultdict(list)
    for place, text in enumerate(classes):
        by_number[plain_number(text)].append(place)
    if None in by_number:
        return {text: found[text] for text in labels if text in found}
    users = Counter(plain_number(text) for text in labels)
    places = {}
    for text in labels:
        number = plain_number(text)
        same = by_number.get(number, []) if number is not None else []
        if text in found:
            places[text] = found[text]
        elif len(same) == 1 and (merged or users[number] == 1):
            places[text] = same[0]
    return places
