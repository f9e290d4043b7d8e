"""Find the season of a series: the lag at which it repeats itself."""

import numpy as np

from loopedge.tasks.task import Array

__all__ = ["find_season"]

LEAST_CORRELATION = 0.2
"""A lag counts as a season from this autocorrelation on."""
MOST_ROWS = 65_536
"""Rows looked at, the last ones: a season that does not show in them is none to forecast by."""


def find_season(values: Array) -> int | None:
    """Return the lag with the strongest peak of the autocorrelation, past its first zero.

    Args:
        values: float64 (rows,) or (rows, columns): the mean of the columns' autocorrelations counts.

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
    return int(peaks[correlation[peaks].argmax()]) if len(peaks) else None
