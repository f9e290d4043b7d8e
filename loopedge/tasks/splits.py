"""Splits of a series by time: training, validation and test rows, and rolling origins."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopedge.tasks.task import SPLITS, Array, Split

__all__ = ["Bounds", "Origin", "rows_needed", "split_bounds", "split_series"]

TRAIN_PERCENT, VALIDATION_PERCENT = 70, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """First row, and one past the last row, that the targets of a split may stand in."""

    first: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One of several origins that follow each other at the end of the data.

    Args:
        number: From 0, the earliest.
        count: How many there are.
    """

    number: int
    count: int


def split_bounds(rows: int, origin: Origin | None = None) -> dict[Split, Bounds]:
    """Return the rows of the three splits in the order of time.

    Args:
        rows: Of one series.
        origin: Default: 70, 15 and 15 %. With K origins the last 30 % are K + 1 blocks of equal
            size: origin i is tested on block i + 1, validated on the block before, and trained on
            all rows before that.
    """
    if origin is None:
        train = rows * TRAIN_PERCENT // 100
        validation = rows * (TRAIN_PERCENT + VALIDATION_PERCENT) // 100
        end = rows
    else:
        block = rows * (100 - TRAIN_PERCENT) // (100 * (origin.count + 1))
        end = rows - (origin.count - 1 - origin.number) * block
        train, validation = end - 2 * block, end - block
    return {
        "train": Bounds(first=0, end=train),
        "validation": Bounds(first=train, end=validation),
        "test": Bounds(first=validation, end=end),
    }


def rows_needed(history: int, horizon: int, origins: int | None = None) -> int:
    """Return the least number of rows that gives every split a window.

    Args:
        history: Rows that stand before the first target at least.
        horizon: Rows that are forecast.
        origins: How many there are; default: one plain split.
    """
    first = None if origins is None else Origin(number=0, count=origins)
    rows = history + 3 * horizon
    while True:
        bounds = split_bounds(rows, first)
        train = bounds["train"].end - history - horizon
        others = min(bounds[s].end - bounds[s].first for s in SPLITS[1:]) - horizon
        later = bounds["validation"].first - history
        if min(train, others, later) >= 0:
            return rows
        rows += max(1, -min(train, others))


def split_series(names: Sequence[str], classes: Array) -> dict[Split, Array]:
    """Split whole series 70, 15 and 15 % within each class, in the order of a hash of their names.

    So the split depends neither on a seed nor on the order of the file, and the first series of
    every class is for training.

    Args:
        names: Of the series.
        classes: int (series,).

    Returns:
        The numbers of the series of each split, ascending.
    """
    rank = np.argsort(
        np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names], kind="stable")
    )
    chosen: dict[Split, list[Array]] = {split: [] for split in SPLITS}
    for kind in np.unique(classes):
        members = np.flatnonzero(classes == kind)
        members = members[np.argsort(rank[members])]
        share = (np.arange(len(members)) + 0.5) / len(members) * 100
        places = np.digitize(share, [TRAIN_PERCENT, TRAIN_PERCENT + VALIDATION_PERCENT])
        for place, split in enumerate(SPLITS):
            chosen[split].append(members[places == place])
    return {split: np.sort(np.concatenate(parts)) for split, parts in chosen.items()}
