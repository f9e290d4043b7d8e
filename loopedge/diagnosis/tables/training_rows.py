"""Rows of a target as they stand one after the other: by series, in units of their training deviation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Array

__all__ = ["Piece", "target_pieces"]

MOST_SERIES = 200
"""Series that are looked at; of more some that are spread evenly over all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One series of one target.

    Args:
        name: Of the target.
        values: float64 (rows,), raw; NaN where nothing was observed.
        train: One past the last training row.
        test: The first test row.
        end: One past the last test row.
    """

    name: str
    values: Array
    train: int
    test: int
    end: int


def target_pieces(task: SeriesTask) -> Iterator[Piece]:
    """Yield each series of each target."""
    spans = list(task.columns.spans())
    chosen = np.unique(np.linspace(0, len(spans) - 1, MOST_SERIES).round().astype(int)).tolist()
    for place in range(task.targets):
        for number in chosen:
            first, end = spans[number]
            rows = slice(first, end)
            observed = task.columns.observed[rows, place]
            bounds = task.bounds[number]
            yield Piece(
                name=task.columns.names[place],
                values=np.where(observed, task.columns.values[rows, place], np.nan),
                train=bounds["train"].end,
                test=bounds["test"].first,
                end=bounds["test"].end,
            )
