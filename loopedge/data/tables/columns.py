"""Columns of one or several series, one series after the other, with their gaps dealt with."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.data.tables.reading import Table
from loopedge.data.tables.timeline.gaps import GapRule, TimedRows, split_at_gaps
from loopedge.data.tables.timeline.grid import put_on_grid
from loopedge.data.tables.times import Times
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option

__all__ = [
    "Arranged",
    "Columns",
    "Missing",
    "arrange",
    "carry_forward",
    "fit_scaling",
    "is_constant",
    "make_columns",
]

Missing = Literal["refuse", "interpolate", "indicator"]
"""What happens to missing values."""

NOISE = 2.0**-50
"""Deviation that float64 arithmetic leaves of a constant, as a share of it."""


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
        times: Of the table rows, where they are known.
        pieces: int64 (pieces + 1,): as ``edges``, of what stands together without a gap: a window stays within a
            piece, and a piece within a series; default: each series is one.
        findings: What a person should know of the table.
    """

    names: tuple[str, ...]
    values: Array
    observed: Array
    edges: Array | None = None
    series: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    codes: Array | None = None
    times: Times | None = None
    pieces: Array | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def bounds(self) -> Array:
        """First table row of each series, then their number."""
        if self.edges is not None:
            return self.edges
        return np.array([0, len(self.values)], np.int64)

    @property
    def piece_bounds(self) -> Array:
        """First table row of each piece, then their number."""
        return self.bounds if self.pieces is None else self.pieces

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield first table row, and one past the last one, of each series."""
        yield from itertools.pairwise(self.bounds.tolist())

    def series_of(self, rows: Array) -> Array:
        """Return the number of the series that each of ``rows`` belongs to."""
        number: Array = np.searchsorted(self.bounds, rows, side="right") - 1
        return number

    def first_rows(self, rows: Array) -> Array:
        """Return the first table row of the series that each of ``rows`` belongs to."""
        first: Array = self.bounds[self.series_of(rows)]
        return first

    def piece_starts(self, rows: Array) -> Array:
        """Return the first table row of the piece that each of ``rows`` belongs to."""
        bounds = self.piece_bounds
        starts: Array = bounds[np.searchsorted(bounds, rows, side="right") - 1]
        return starts

    def piece_ends(self, rows: Array) -> Array:
        """Return one past the last table row of the piece that each of ``rows`` belongs to."""
        bounds = self.piece_bounds
        ends: Array = bounds[np.searchsorted(bounds, rows, side="right")]
        return ends

    def windows(self, stops: Array, context: int, padding: Array) -> tuple[Array, Array]:
        """Return the table rows before some rows, padded on the left where a piece begins later.

        Args:
            stops: int64 (windows,): one past the last table row of each.
            context: Table rows of a window.
            padding: (columns,): what stands where a window holds no table row. Windows are masked there; the mean of
                the training part also keeps it out of the ranges that int8 is calibrated on.

        Returns:
            float64 (windows, context, columns), and bool (windows, context): where a table row stands.
        """
        rows = stops[:, None] + np.arange(-context, 0)
        kept = rows >= self.piece_starts(stops - 1)[:, None]
        values = self.values[np.where(kept, rows, 0)]
        return np.where(kept[:, :, None], values, padding), kept


def make_columns(
    table: Table, *, missing: Missing, frequency: str | None = None, gaps: GapRule = "split"
) -> Columns:
    """Put series after series, each in the order of its table rows, and deal with missing values.

    Args:
        table: As read. Its values are filled in place where they are interpolated.
        missing: ``refuse`` them; ``interpolate`` along a straight line between the neighbours in
            the series, at its ends with the nearest value; or leave them as NaN: ``indicator``.
        frequency: Grid on which each series is put where the table has times, as
            `loopedge.data.tables.timeline.frequency.parse_frequency` names them, or ``auto``; default: the rows as they are.
        gaps: Without a frequency: what happens where table rows are missing between two times.

    Raises:
        InputError: A value is missing and shall not be, a column holds none at all, or the times do not allow what
            is asked.
    """
    arranged = arrange(table, frequency=frequency, gaps=gaps, refuse=missing == "refuse")
    _check_missing(table, arranged.columns, missing)
    if missing == "interpolate":
        _interpolate(table, arranged)
    return arranged.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """A table, series after series, its missing values as they are.

    Args:
        columns: The table rows.
        order: int64 (table rows,): the number of each in the file; default: as they are. It says nothing of a table
            into which rows were inserted.
        lengths: float64 (table rows,): how far each is from the one before, in steps, where that is known.
    """

    columns: Columns
    order: Array | None = None
    lengths: Array | None = None

    def fill(self, number: int, place: int) -> None:
        """Fill the missing values of a column in a series along a straight line: over rows, or over steps where they are known.

        Before the first value and behind the last one the nearest stands in.

        Unchecked: the column holds a value there.
        """
        first, end = self.columns.bounds[number : number + 2].tolist()
        known = self.columns.observed[first:end, place]
        filled = self.columns.values[first:end, place]
        at = np.arange(end - first) if self.lengths is None else np.cumsum(self.lengths[first:end])
        filled[~known] = np.interp(at[~known], at[known], filled[known])


def arrange(
    table: Table,
    *,
    frequency: str | None,
    gaps: GapRule,
    refuse: bool,
    step: str | None = None,
) -> Arranged:
    """Put series after series, each in the order of its table rows, and mind the gaps of their times.

    Args:
        table: As read.
        frequency: As `make_columns`, like the next one.
        gaps: What happens at gaps.
        refuse: Missing values are refused, and so are rows that a frequency would insert.
        step: Name of the frequency by which rows are expected to follow each other; default: found in the times.

    Raises:
        InputError: The times do not allow what is asked.
    """
    values, groups = table.values, table.groups
    codes = None if table.labels is None else table.labels.codes
    order: Array | None = None
    times = table.times
    edges: Array | None = None
    names: tuple[str, ...] = ()
    if groups is not None:
        if (np.diff(groups.codes) < 0).any():  # the table rows of a series do not stand together
            order = np.argsort(groups.codes, kind="stable")
            values = values[order]
            codes = None if codes is None else codes[order]
            times = None if times is None else times.take(order)
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
        findings=table.findings,
    )
    lengths: Array | None = None
    if times is not None:
        rows_of = TimedRows(
            times=times, places=table.places, order=order, bounds=columns.bounds, series=names
        )
        if frequency is None:
            columns, lengths = split_at_gaps(columns, rows_of, gaps, step)
        else:
            columns = put_on_grid(columns, rows_of, frequency, refuse=refuse)
    return Arranged(columns=columns, order=order, lengths=lengths)


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


def _interpolate(table: Table, arranged: Arranged) -> None:
    """Fill missing values along straight lines."""
    columns = arranged.columns
    for number, (first, end) in enumerate(columns.spans()):
        for place, name in enumerate(columns.names):
            known = columns.observed[first:end, place]
            if known.all():
                continue
            if not known.any():
                raise InputError(
                    f"{table.source}: column {name!r} holds no value in {columns.series[number]!r}",
                    hint=f"add {option('missing', 'indicator')}: a whole series cannot be interpolated",
                )
            arranged.fill(number, place)


def fit_scaling(columns: Columns, training: Array) -> tuple[Array, Array]:
    """Fit mean and standard deviation of each column on the observed training values.

    A column that is constant there, but for what float64 arithmetic leaves of a constant, or has no value
    there, gets the scale 1.

    Args:
        columns: The table rows.
        training: bool (table rows,): which of them are for training.

    Returns:
        Mean and scale, float64 (columns,).
    """
    means, scales = [], []
    for place in range(len(columns.names)):
        seen = columns.values[training & columns.observed[:, place], place]
        means.append(float(seen.mean()) if len(seen) else 0.0)
        scales.append(1.0 if is_constant(seen) else float(seen.std()))
        del seen  # before the next copy is made
    return np.array(means), np.array(scales)


def is_constant(values: Array) -> bool:
    """Tell whether values are all one, but for what float64 arithmetic leaves of a constant; no values are."""
    if not len(values) or values.min() == values.max():
        return True
    noise = NOISE * abs(float(values.mean()))
    # The deviation is at least that of two values that are so far apart: it takes no copy of the column.
    if float(values.max() - values.min()) > noise * (2 * len(values)) ** 0.5:
        return False
    return float(values.std()) <= noise


def carry_forward(columns: Columns, count: int, mean: Array) -> Array:
    """Return the first columns with each missing value replaced by the last one before it.

    Args:
        columns: The table rows.
        count: How many columns.
        mean: (columns,): what stands before the first value of a piece.

    Returns:
        float64 (table rows, count).
    """
    values = columns.values[:, :count]
    if not np.isnan(values).any():
        return values
    rows = np.arange(len(values))
    first = columns.piece_starts(rows)
    filled = np.empty_like(values)
    for place in range(count):
        known = ~np.isnan(values[:, place])
        last = np.maximum.accumulate(np.where(known, rows, first))
        filled[:, place] = values[last, place]
    return np.where(np.isnan(filled), mean[:count], filled)
