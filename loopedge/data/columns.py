"""Columns of one or several series, one series after the other, with their gaps dealt with."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loopedge.data.tables import Table
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option

__all__ = ["Columns", "Missing", "carry_forward", "fit_scaling", "make_columns"]

Missing = Literal["refuse", "interpolate", "indicator"]
"""What happens to missing values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Number columns of one or several series.

    Args:
        names: In the order asked for.
        values: float64 (table rows, columns); where a value was missing, interpolated or NaN.
        observed: bool (table rows, columns): False where a value was missing.
        edges: int64 (series + 1,): series i holds the table rows from ``edges[i]`` to ``edges[i + 1]``;
            default: all table rows are one series.
        series: Names of the series, where there are several.
        labels: Text of each label code, where there are labels.
        codes: int32 (table rows,): the label of each table row; -1 where it is missing.
    """

    names: tuple[str, ...]
    values: Array
    observed: Array
    edges: Array | None = None
    series: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    codes: Array | None = None

    @property
    def bounds(self) -> Array:
        """First table row of each series, then their number."""
        if self.edges is not None:
            return self.edges
        return np.array([0, len(self.values)], np.int64)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield first table row, and one past the last one, of each series."""
        yield from itertools.pairwise(self.bounds.tolist())

    def first_rows(self, rows: Array) -> Array:
        """Return the first table row of the series that each of ``rows`` belongs to."""
        bounds = self.bounds
        first: Array = bounds[np.searchsorted(bounds, rows, side="right") - 1]
        return first


def make_columns(table: Table, *, missing: Missing) -> Columns:
    """Put series after series, each in the order of its table rows, and deal with missing values.

    Args:
        table: As read. Its values are filled in place where they are interpolated.
        missing: ``refuse`` them; ``interpolate`` along a straight line between the neighbours in
            the series, at its ends with the nearest value; or leave them as NaN: ``indicator``.

    Raises:
        InputError: A value is missing and shall not be, or a column holds none at all.
    """
    values, groups = table.values, table.groups
    codes = None if table.labels is None else table.labels.codes
    edges: Array | None = None
    names: tuple[str, ...] = ()
    if groups is not None:
        if (np.diff(groups.codes) < 0).any():
            order = np.argsort(groups.codes, kind="stable")
            values = values[order]
            codes = None if codes is None else codes[order]
        rows = np.bincount(groups.codes, minlength=len(groups.names))
        edges, names = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64), groups.names
    columns = Columns(
        names=table.names,
        values=values,
        observed=~np.isnan(values),
        edges=edges,
        series=names,
        labels=() if table.labels is None else table.labels.names,
        codes=codes,
    )
    _check_missing(table, columns, missing)
    if missing == "interpolate":
        _interpolate(table, columns)
    return columns


def _check_missing(table: Table, columns: Columns, missing: Missing) -> None:
    if table.first_missing is None:
        return
    for place, name in enumerate(columns.names):
        if not columns.observed[:, place].any():
            raise InputError(f"{table.source}: column {name!r} holds no value at all")
    if missing == "refuse":
        count = int((~columns.observed).sum())
        more = f" ({count} values are missing altogether)" if count > 1 else ""
        raise InputError(
            f"{table.first_missing}: the value is missing{more}",
            hint=f"add {option('missing', 'interpolate')} to fill gaps along a straight line, or {option('missing', 'indicator')}",
        )


def _interpolate(table: Table, columns: Columns) -> None:
    for number, (first, end) in enumerate(columns.spans()):
        at = np.arange(end - first)
        for place, name in enumerate(columns.names):
            known = columns.observed[first:end, place]
            if known.all():
                continue
            if not known.any():
                raise InputError(
                    f"{table.source}: column {name!r} holds no value in {columns.series[number]!r}",
                    hint=f"add {option('missing', 'indicator')}: a whole series cannot be interpolated",
                )
            filled = columns.values[first:end, place]
            filled[~known] = np.interp(at[~known], at[known], filled[known])


def fit_scaling(columns: Columns, training: Array) -> tuple[Array, Array]:
    """Fit mean and standard deviation of each column on the observed training values.

    A column that is constant there, or has no value there, gets the scale 1.

    Args:
        columns: The table rows.
        training: bool (table rows,): which of them are for training.

    Returns:
        Mean and scale, float32 (columns,).
    """
    means, scales = [], []
    for place in range(len(columns.names)):
        seen = columns.values[training & columns.observed[:, place], place]
        means.append(float(seen.mean()) if len(seen) else 0.0)
        spread = float(seen.std()) if len(seen) else 0.0
        # Below that, float32 cannot tell the values apart and the quotient is noise.
        smallest = 1e-6 * max(abs(means[-1]), float(np.finfo(np.float32).tiny))
        scales.append(spread if spread > smallest else 1.0)
    return np.array(means, np.float32), np.array(scales, np.float32)


def carry_forward(columns: Columns, count: int, mean: Array) -> Array:
    """Return the first columns with each missing value replaced by the last one before it.

    Args:
        columns: The table rows.
        count: How many columns.
        mean: float32 (columns,): what stands before the first value of a series.

    Returns:
        float64 (table rows, count).
    """
    values = columns.values[:, :count]
    if not np.isnan(values).any():
        return values
    rows = np.arange(len(values))
    first = columns.first_rows(rows)
    filled = np.empty_like(values)
    for place in range(count):
        known = ~np.isnan(values[:, place])
        last = np.maximum.accumulate(np.where(known, rows, first))
        filled[:, place] = values[last, place]
    return np.where(np.isnan(filled), mean[:count], filled)
