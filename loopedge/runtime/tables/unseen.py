"""Values that a model was never trained on: another unit, another meter, a number that was read in another way."""

from collections.abc import Sequence

import numpy as np

from loopedge.data.tables.findings import Finding
from loopedge.files.arrays import Array
from loopedge.runtime.tables.described_table import DescribedTable
from loopedge.units import value_text

__all__ = ["FAR", "unseen_findings"]

FAR = 10.0
"""Deviations of training from its mean from which on a value is said to be far."""


def unseen_findings(
    inputs: Array, kept: Array, described: DescribedTable, series: Sequence[str]
) -> list[Finding]:
    """Name columns whose windows lie far from what the model was trained on; of a model that scales by window none.

    Args:
        inputs: (windows, context, columns) in raw units, NaN where a value is missing.
        kept: bool (windows, context): where a table row stands.
        described: The table that the model was trained on.
        series: Names of the windows; one empty name where the table is one series.
    """
    if described.by_window or described.scale.shape != described.mean.shape:
        return []
    findings = []
    away = (inputs - described.mean) / described.scale
    far = (np.abs(away) > FAR) & kept[:, :, None]
    for place, name in enumerate(described.columns):
        windows = np.flatnonzero(far[:, :, place].any(axis=1))
        if not len(windows):
            continue
        first = int(windows[0])
        values = inputs[first, :, place][far[first, :, place]]
        at = float(values[-1])
        deviations = abs(at - described.mean[place]) / described.scale[place]
        apart = f"{deviations:,.0f} standard deviations from"
        if described.scale[place] == 1.0:  # what a column gets that was constant: no deviation
            apart = "far from"
        of = f" of {series[first]!r}" if series[first] else ""
        more = f", and of {len(windows) - 1} more series" if len(windows) > 1 else ""
        mean = value_text(float(described.mean[place]))
        message = (
            f"column {name!r} holds {value_text(at)} in the window{of}{more}: {apart} "
            f"{mean}, the mean of training; the model was never trained on such values"
        )
        findings.append(Finding(kind="drift", message=message))
    return findings
