"""How long samples are: all alike, or not, and whether the test split has longer ones than training."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.options import option
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import SPLITS, Array, Split, Task

__all__ = ["Lengths", "advise_lengths", "measure_lengths"]

CUT = 0.05
"""Share of whole series that are longer than the context from which on it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of series in table rows, of texts and pairs in tokens.

    Args:
        unit: ``rows`` or ``tokens``.
        shortest: Of all splits.
        median: Of all splits.
        longest: By split, of those that have samples; of series that are split by time one figure for all.
        fixed: Whether all have one length.
        seen: Most that a model sees.
        cut: Share that is longer than that.
    """

    unit: str
    shortest: int
    median: float
    longest: dict[str, int]
    fixed: bool
    seen: int
    cut: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_lengths(task: Task, samples: int) -> Lengths | None:
    """Measure series of a table, or else the positions that are not padded in samples of each split.

    Args:
        task: The data.
        samples: Most samples of a split that are looked at.

    Returns:
        None where a task has no sequences.
    """
    if isinstance(task, SeriesTask):
        rows = np.diff(task.columns.bounds)
        return _lengths("rows", {"train": rows}, seen=task.context, whole=False)
    if isinstance(task, LabelledSeriesTask):
        rows = np.diff(task.columns.bounds)
        if task.group is None:
            return _lengths("rows", {"train": rows}, seen=task.context, whole=False)
        own: dict[Split, Array] = {
            split: rows[task.columns.series_of(task.stops[split] - 1)] for split in SPLITS
        }
        return _lengths("rows", own, seen=task.context, whole=True)
    found = {split: _kept(task, split, samples) for split in SPLITS}
    seen = int(task.model_fields().get("max_length", 0))
    known = {split: each for split, each in found.items() if len(each)}
    return _lengths("tokens", known, seen=seen, whole=True) if known else None


def _kept(task: Task, split: Split, samples: int) -> Array:
    """Return how many positions of each sample are no padding: int64 (samples,)."""
    found = [np.empty(0, np.int64)]
    for batch in task.evaluation(split, 256, samples):
        if batch.inputs.ndim > 1:
            mask = batch.attention_mask
            full = np.full(len(batch.inputs), batch.inputs.shape[1], np.int64)
            found.append(full if mask is None else (mask > 0).sum(axis=1))
    return np.concatenate(found)


def _lengths(unit: str, by_split: dict[Split, Array], *, seen: int, whole: bool) -> Lengths:
    every = np.concatenate(list(by_split.values()))
    return Lengths(
        unit=unit,
        shortest=int(every.min()),
        median=float(np.median(every)),
        longest={split: int(rows.max()) for split, rows in by_split.items() if len(rows)},
        fixed=bool(every.min() == every.max()),
        seen=seen,
        cut=float((every > seen).mean()) if whole else 0.0,
    )


def advise_lengths(found: Lengths) -> list[Advice]:
    """Say where whole series are cut, or where the test split has longer ones than training."""
    advice = []
    longest = max(found.longest.values())
    if found.cut > CUT:
        message = (
            f"{found.cut:.0%} of the series are longer than the {found.seen} rows that are seen, the longest has {longest}: "
            "their beginnings are left out"
        )
        advice.append(
            Advice(kind="lengths", message=message, option=option("context", longest), weight=0.5)
        )
    trained = found.longest.get("train", longest)
    beyond = {split: rows for split, rows in found.longest.items() if rows > trained}
    if beyond and min(found.seen, longest) > trained:
        split = max(beyond, key=lambda each: beyond[each])
        message = f"the longest of {split} has {beyond[split]} {found.unit}, that of training {trained}: learned positions end there"
        advice.append(Advice(kind="lengths", message=message, weight=0.4))
    return advice
