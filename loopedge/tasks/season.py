"""The season of a series: the lag at which it repeats itself, and by how much it changes over one."""

from dataclasses import dataclass

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.data.tables.findings import Finding
from loopedge.tasks.task import Array

__all__ = ["SeasonalScale", "find_season", "seasonal_scale"]

LEAST_CORRELATION = 0.2
"""A lag counts as a season from this autocorrelation on."""
MOST_CHANGE = 1.1
"""A part of a lag is the season where the mean squared change over it is at most so many times that over the lag."""
MOST_ROWS = 65_536
"""Rows looked at, the last ones: a season that does not show in them is none to forecast by."""
CHUNK = 65_536
"""Table rows whose changes are summed at once."""
ROUNDING = 256 * float(np.finfo(np.float64).eps)
"""A mean change up to this share of the largest value is rounding: a series that repeats itself exactly."""


def find_season(values: Array) -> int | None:
    """Return the lag with the strongest peak of the autocorrelation, past its first zero, or a whole part of it.

    What repeats itself every 24 rows does so every 144 too, and noise decides which of the two peaks is higher. The
    shortest n-th part counts over which the values change hardly more than over the whole lag: their mean squared
    change, over the same rows, is at most 1.1 times as large. A weekly rhythm of days stays 168 where the same hour of
    another day differs by more.

    Args:
        values: float64 (rows,) or (rows, columns): the mean of the columns' autocorrelations and changes counts.

    Returns:
        A lag from 2 to half the rows, or None where no peak reaches 0.2.
    """
    columns = values.reshape(len(values), -1)[-MOST_ROWS:]
    rows = len(columns)
    centred = columns - columns.mean(axis=0) if rows else columns
    power = np.square(centred).sum(axis=0)
    centred, power = centred[:, power > 0], power[power > 0]
    if rows < 8 or not len(power):
        return None
    spectrum = np.fft.rfft(centred, 2 * rows, axis=0)
    correlations = np.fft.irfft(spectrum * spectrum.conj(), 2 * rows, axis=0)
    correlation = (correlations[: rows // 2 + 1] / power).mean(axis=1)
    below = np.flatnonzero(correlation < 0)
    if not len(below):
        return None
    middle = correlation[1:-1]
    peaks = 1 + np.flatnonzero((middle >= correlation[:-2]) & (middle > correlation[2:]))
    peaks = peaks[(peaks > below[0]) & (correlation[peaks] >= LEAST_CORRELATION)]
    if not len(peaks):
        return None
    return _shortest_part(
        centred / np.sqrt(power), int(peaks[correlation[peaks].argmax()]), below[0]
    )


def _shortest_part(columns: Array, lag: int, above: int) -> int:
    """Return the shortest n-th part of a lag, longer than ``above``, over which values change hardly more.

    The parts are rounded: a season of 23.9 rows shows at 143, whose sixth part is 24.

    Args:
        columns: float64 (rows, columns), of unit power each, so that they count alike.
        lag: A season, or a multiple of one.
        above: Where the autocorrelation falls below zero: what is shorter are neighbours, not a season.
    """
    now = columns[lag:]

    def mean_change(rows: int) -> float:
        return float(np.square(now - columns[lag - rows : len(columns) - rows]).mean())

    most = MOST_CHANGE * mean_change(lag) + ROUNDING * float(np.square(columns).mean())
    parts = sorted({round(lag / count) for count in range(2, lag // 2 + 1)})
    return next((rows for rows in parts if rows > above and mean_change(rows) <= most), lag)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalScale:
    """By how much each series changes over a season in its training rows: the unit of MASE.

    The mean of |y_t - y_(t-m)|, the in-sample error of the seasonal naive forecast (Hyndman and Koehler 2006,
    Another look at measures of forecast accuracy, section 3).

    Args:
        season: m, in table rows; 1 where there is no season.
        values: float64 (series, targets) in raw units; NaN where a series has none: it does not change over a
            season, or no two of its training values are observed a season or a row apart.
        shorter: bool (series, targets): no two values are observed a season apart, so m is 1 there.
        constant: bool (series, targets): it does not change.
    """

    season: int
    values: Array
    shorter: Array
    constant: Array

    def typical(self) -> list[float | None]:
        """Return the scale of each target: of several series their median; None where none has one."""
        known = [column[np.isfinite(column)] for column in self.values.T]
        return [float(np.median(column)) if len(column) else None for column in known]

    def findings(self, names: tuple[str, ...], used: Array) -> list[Finding]:
        """Say which series MASE leaves out, and which are measured by the change over a row instead of a season.

        Args:
            names: Of the targets.
            used: bool (series,): those that have windows; the others are in no score.
        """
        said = []
        for place, name in enumerate(names):
            known = np.isfinite(self.values[used, place])
            said += self._undefined(name, known, self.constant[used, place])
            said += self._shorter(name, self.shorter[used, place] & known)
        return [Finding(kind="mase", message=message) for message in said]

    def _undefined(self, name: str, known: Array, constant: Array) -> list[str]:
        """Say in which series a target has no unit, and why."""
        out = ~known
        if not out.any():
            return []
        still = "never changes"
        if self.season > 1:
            still = f"does not change over a season of {self.season} table rows"
        few = "has no two neighbouring values"
        why = " or ".join(
            text for text, found in ((still, out & constant), (few, out & ~constant)) if found.any()
        )
        if len(self.values) == 1:
            return [f"{name!r} {why} in training: its MASE is undefined"]
        left = "is that of the others" if known.any() else "is undefined"
        return [
            f"{name!r} {why} in training in {out.sum()} of {len(known)} series: its MASE {left}"
        ]

    def _shorter(self, name: str, shorter: Array) -> list[str]:
        if not shorter.any():
            return []
        where = "" if len(self.values) == 1 else f" of {shorter.sum()} of {len(shorter)} series"
        return [
            f"no two training values of {name!r}{where} stand a season of {self.season} table rows apart: "
            "the unit of its MASE is the change over one row there"
        ]


def seasonal_scale(
    columns: Columns, targets: int, season: int | None, ends: Array
) -> SeasonalScale:
    """Measure by how much each series changes over a season.

    Pairs stand within a piece of the table, and both of their values were observed.

    Args:
        columns: The table rows.
        targets: How many of the columns are targets.
        season: In table rows; None: there is none, the change over one row counts.
        ends: int64 (series,): one past the last training row of each series.
    """
    lag = season or 1
    found = _changes(columns, targets, lag, ends)
    shorter = found[1] == 0
    if lag > 1 and shorter.any():
        for own, other in zip(found, _changes(columns, targets, 1, ends), strict=True):
            own[shorter] = other[shorter]
    sums, counts, largest = found
    means = sums / np.maximum(1, counts)
    constant = (counts > 0) & (means <= ROUNDING * largest)
    return SeasonalScale(
        season=lag,
        values=np.where((counts > 0) & ~constant, means, np.nan),
        shorter=shorter & (counts > 0) & (lag > 1),
        constant=constant,
    )


def _changes(columns: Columns, targets: int, lag: int, ends: Array) -> tuple[Array, Array, Array]:
    """Return sums and numbers of the absolute changes over a lag, and the largest values, (series, targets)."""
    values, observed = columns.values[:, :targets], columns.observed[:, :targets]
    pieces = columns.piece_bounds
    sums, largest = (np.zeros((len(ends), targets)) for _ in range(2))
    counts = np.zeros((len(ends), targets), np.int64)
    series = columns.series_of(pieces[:-1])
    for number, first, last in zip(series.tolist(), pieces[:-1], pieces[1:], strict=True):
        end = min(int(last), int(ends[number]))
        for begin in range(int(first) + lag, end, CHUNK):
            stop = min(begin + CHUNK, end)
            now, before = slice(begin, stop), slice(begin - lag, stop - lag)
            pairs = observed[now] & observed[before]
            sums[number] += np.where(pairs, np.abs(values[now] - values[before]), 0.0).sum(axis=0)
            counts[number] += pairs.sum(axis=0)
            size = np.where(pairs, np.abs(values[now]), 0.0).max(axis=0)
            largest[number] = np.maximum(largest[number], size)
    return sums, counts, largest
