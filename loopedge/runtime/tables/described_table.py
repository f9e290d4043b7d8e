"""What a model file says of the tables that it takes: columns, sizes, and how the table is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from loopedge.data.description import TABLES
from loopedge.data.tables.columns import Missing
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.timeline.gaps import GapRule
from loopedge.errors import InputError
from loopedge.files.arrays import Array

__all__ = ["DescribedTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedTable:
    """The table that a model was trained on, as its file describes it.

    Args:
        targets: Columns that it forecasts; none where it tells labels.
        covariates: Further columns that it sees.
        context: Table rows of a window.
        min_context: Least table rows of a window, which is padded on the left; ``context`` where none was.
        mean: float64 (columns,) of the training part: what windows are padded with.
        scale: float64 (columns,): deviation of the training part, or what else the model scales by; empty: not known.
        missing: What happens to missing values.
        by_window: Whether each window is scaled by its own table rows.
        time_column: Column of the times, where there is one.
        group: Column of the names of the series, where there is one.
        frequency: Grid of times on which the series were put; None: the table rows as they are.
        gaps: What happened at gaps of the times.
        step: Frequency by which most table rows followed each other, where there was one.
        form: How the table was written down.
        horizon: Table rows that it forecasts; 0 where it tells labels.
        label: Column of the labels that it tells, where it does.
        classes: The labels.
    """

    targets: tuple[str, ...]
    covariates: tuple[str, ...]
    context: int
    min_context: int
    mean: Array
    scale: Array
    missing: Missing
    by_window: bool
    time_column: str | None
    group: str | None
    frequency: str | None
    gaps: GapRule
    step: str | None
    form: TableFormat
    horizon: int
    label: str | None
    classes: tuple[str, ...]

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> "DescribedTable | None":
        """Return what a task's description says; None where it is the task of no table."""
        if task.get("name") not in TABLES:
            return None
        targets = (task["target"],) if "target" in task else tuple(task.get("targets", ()))
        missing: Missing = task.get("missing") or "refuse"
        if task.get("interpolate"):  # as 0.1 wrote it
            missing = "interpolate"
        labels = task["name"] == "series-labels"
        return cls(
            targets=targets,
            covariates=tuple(task["covariates"]),
            context=task["context"],
            min_context=task.get("min_context") or task["context"],
            mean=np.asarray(task["mean"], np.float64),
            scale=np.asarray(task.get("scale", ()), np.float64),
            missing=missing,
            by_window=task.get("scaling") == "window",
            time_column=task.get("time_column"),
            group=task.get("group"),
            frequency=task.get("frequency"),
            gaps=task.get("gaps") or "cross",  # before there were gaps, rows were steps
            step=task.get("step"),
            form=TableFormat.from_json(task.get("form", {})),
            horizon=0 if labels else task.get("horizon") or 0,
            label=task.get("label") or None,
            classes=tuple(task.get("classes", ())),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the model sees, in their order."""
        return (*self.targets, *self.covariates)

    def written(self, form: TableFormat | Mapping[str, Any] | None) -> TableFormat:
        """Return how a table is written down.

        Args:
            form: All of it, or fields of it by name, which win over those of training; None: as in training.

        Raises:
            InputError: It is something else, or has other fields.
        """
        if isinstance(form, TableFormat):
            return form
        known = [field.name for field in fields(TableFormat)]
        if form is not None and not isinstance(form, Mapping):
            raise InputError(
                f"form is {form!r}, a TableFormat or fields of it by name are needed",
                hint=f"for example form={{'delimiter': {form!r}}}",
            )
        unknown = next((name for name in form or {} if name not in known), None)
        if unknown is not None:
            raise InputError(
                f"form has no field {unknown!r}; its fields are {', '.join(known)}",
                hint="name one of them",
            )
        return replace(self.form, **(form or {}))
