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

    So the split depends neither on a seed nor on the order of the file. Each class has a series for
    training; what rounding takes from a split in one class it gets back in the next. Where there are
    two more series than classes, no split is empty.

    Args:
        names: Of the series.
        classes: int (series,).

    Returns:
        The numbers of the series of each split, ascending.
    """
    rank = np.argsort(
        np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names], kind="stable")
    )
    kinds, sizes = np.unique(classes, return_counts=True)
    counts = _share(sizes)
    chosen: dict[Split, list[Array]] = {split: [np.empty(0, np.int64)] for split in SPLITS}
    for kind, ends in zip(kinds, counts.cumsum(axis=1), strict=True):
        members = np.flatnonzero(classes == kind)
        members = members[np.argsort(rank[members])]
        for split, part in zip(SPLITS, np.split(members, ends[:-1]), strict=True):
            chosen[split].append(part)
    return {split: np.sort(np.concatenate(parts)) for split, parts in chosen.items()}


def _share(sizes: Array) -> Array:
    """Return how many of each class a split gets, int64 (classes, splits)."""
    counts = np.zeros((len(sizes), len(SPLITS)), np.int64)
    total = 0
    for row, size in zip(counts, sizes.tolist(), strict=True):
        total += size
        given = counts[:, 0].sum()
        least = max(1, size * TRAIN_PERCENT // 100)
        most = -(-size * TRAIN_PERCENT // 100)
        row[0] = min(max(round(total * TRAIN_PERCENT / 100 - given), least), most)
        rest = size - row[0]
        # Validation and test have equal shares: the one with fewer gets the odd series.
        ahead = int(counts[:, 1].sum() - counts[:, 2].sum())
        row[1] = min(max((rest - ahead + 1) // 2, 0), rest)
        row[2] = rest - row[1]
    _fill_empty(counts)
    return counts


def _fill_empty(counts: Array) -> None:
    """Give a series to a split without any: from the largest share that has one to spare."""
    for split in range(1, len(SPLITS)):
        if counts[:, split].any():
            continue
        spare = counts.copy()
        spare[:, 0] -= 1
        if counts[:, 3 - split].sum() < 2:
            spare[:, 3 - split] = 0
        kind, source = np.unravel_index(spare.argmax(), spare.shape)
        if spare[kind, source] > 0:
            counts[kind, source] -= 1
            counts[kind, split] += 1
