"""Columns that a model cannot learn from as they are: constant ones, counters, levels far apart."""

import numpy as np

from loopedge.data.tables.columns import Columns, is_constant
from loopedge.data.tables.findings import Finding
from loopedge.files.arrays import Array
from loopedge.files.csv.form import form_option
from loopedge.options import option, option_name
from loopedge.units import value_text

__all__ = ["constant_findings", "drift_findings", "level_findings", "stand_in_findings"]

ROWS = 1 << 16
"""Table rows that are compared at once."""
BEYOND = 0.5
"""Share of a split beyond the trained range from which on a column that only rises is said to drift."""
APART = 10.0
"""How often the swing of a series the deviation of all series may be: beyond, a swing is less than 0.1 once scaled."""
STAND_INS = frozenset({-32768.0, 32767.0, 65535.0, 2147483647.0, -2147483648.0, -999.25})
"""Numbers besides those of nines, as -999 and 9999.9, that programs write where they have no value."""


def stand_in_findings(columns: Columns) -> list[Finding]:
    """Name numbers that seem to stand for missing values: such as -999, far from all others of their column.

    Args:
        columns: The table rows.
    """
    findings = []
    for place, name in enumerate(columns.names):
        lowest, highest, _ = _range(columns, place)
        for value in {lowest, highest}:
            if not np.isfinite(value) or not _may_stand_in(value):
                continue
            low, high, count = _range(columns, place, leave_out=value)
            if not low <= high:  # there are no others
                continue
            if max(low - value, value - high) <= max(high - low, abs(low), abs(high)):
                continue
            rows = "1 table row" if count == 1 else f"{count:,} table rows"
            message = (
                f"column {name!r} is {value:.12g} in {rows}, and {value_text(low)} to {value_text(high)} in all others: "
                "it may stand for a missing value"
            )
            option_text = form_option("na_values", f"{value:.12g}")
            findings.append(Finding(kind="left-out", message=message, hint=option_text))
    return findings


def _range(
    columns: Columns, place: int, *, leave_out: float | None = None
) -> tuple[float, float, int]:
    """Return the least and the largest observed value of a column but one, and how often that one is there.

    A block at a time: a copy of a column counts. Without any value they are infinity and minus infinity.
    """
    low, high, left_out = np.inf, -np.inf, 0
    for start in range(0, len(columns.values), ROWS):
        part = slice(start, start + ROWS)
        seen = columns.values[part, place][columns.observed[part, place]]
        others = seen if leave_out is None else seen[seen != leave_out]
        left_out += len(seen) - len(others)
        low = min(low, float(others.min(initial=np.inf)))
        high = max(high, float(others.max(initial=-np.inf)))
    return low, high, left_out


def _may_stand_in(value: float) -> bool:
    digits = f"{abs(value):.12g}".replace(".", "")
    return value in STAND_INS or (len(digits) > 1 and set(digits) == {"9"})


def constant_findings(columns: Columns, training: Array, *, targets: int) -> list[Finding]:
    """Name columns that are constant: throughout, in the training part, or in some of many series.

    Args:
        columns: The table rows; targets first.
        training: bool (table rows,): which of them are for training.
        targets: How many columns are targets.
    """
    findings = []
    for place, name in enumerate(columns.names):
        observed, values = columns.observed[:, place], columns.values[:, place]
        seen, trained = values[observed], values[observed & training]
        if not len(seen) or not len(trained):
            continue
        hint = (
            f"name another {option_name('target')}"
            if place < targets
            else f"leave out {option('covariates', name)}"
        )
        says = "there is nothing to forecast" if place < targets else "it tells a model nothing"
        if is_constant(seen):
            message = f"column {name!r} is {value_text(float(seen[0]))} in every table row: {says}"
            findings.append(Finding(kind="constant", message=message, hint=hint))
        elif is_constant(trained):
            message = (
                f"column {name!r} is {value_text(float(trained[0]))} in every training row and varies later: a model cannot learn "
                "from it"
            )
            findings.append(Finding(kind="constant", message=message, hint=hint))
        else:
            findings += _constant_series(columns, place)
        del seen, trained  # before the next copies are made
    return findings


def _constant_series(columns: Columns, place: int) -> list[Finding]:
    total = len(columns.series)
    if total < 2:
        return []
    still = []
    for name, (first, end) in zip(columns.series, columns.spans(), strict=True):
        seen = columns.values[first:end, place][columns.observed[first:end, place]]
        if len(seen) > 1 and is_constant(seen):
            still.append(name)
    if not still:
        return []
    message = (
        f"column {columns.names[place]!r} is constant in {len(still)} of {total} series"
        f"{', the first' if len(still) > 1 else ','} {still[0]!r}"
    )
    return [Finding(kind="constant", message=message)]


def drift_findings(
    columns: Columns, training: Array, tested: Array, *, targets: int, by_window: bool
) -> list[Finding]:
    """Name columns that only rise, or only fall, past what the training part holds: counters, ids, times.

    Args:
        columns: The table rows; targets first.
        training: bool (table rows,): which of them are for training.
        tested: bool (table rows,): which are for testing.
        targets: How many columns are targets.
        by_window: Each window is scaled by itself: where the rows lie in the whole range does not matter.
    """
    if by_window:
        return []
    findings = []
    for place, name in enumerate(columns.names):
        observed, values = columns.observed[:, place], columns.values[:, place]
        direction = _direction(columns, place)
        if direction is None:
            continue
        trained, later = values[observed & training], values[observed & tested]
        if len(trained) < 2 or not len(later) or is_constant(trained):
            continue
        low, high = float(trained.min()), float(trained.max())
        beyond = float(((later < low) | (later > high)).mean())
        if beyond < BEYOND:
            continue
        hint = option("scaling", "window")
        if place >= targets:
            hint += f", or leave out {option('covariates', name)}, if it is an id or a time"
        message = (
            f"column {name!r} only {direction}: {beyond:.0%} of the test rows lie beyond the {value_text(low)} to {value_text(high)} of "
            "training, where a model was never trained"
        )
        findings.append(Finding(kind="drift", message=message, hint=hint))
    return findings


def _direction(columns: Columns, place: int) -> str | None:
    """Say whether a column ``rises`` or ``falls`` from row to row in every series; None where it does both."""
    rises = falls = False
    for first, end in columns.spans():
        before = np.empty(0)
        for start in range(first, end, ROWS):  # some rows at a time: most columns say it soon
            rows = slice(start, min(start + ROWS, end))
            seen = columns.values[rows, place][columns.observed[rows, place]]
            steps = np.diff(seen, prepend=before)
            before = seen[-1:] if len(seen) else before
            rises |= bool((steps > 0).any())
            falls |= bool((steps < 0).any())
            if rises and falls:
                return None
    return "rises" if rises else "falls" if falls else None


def level_findings(columns: Columns, training: Array, *, by_window: bool) -> list[Finding]:
    """Name columns whose series stand at levels that are far apart against what each of them swings by.

    Args:
        columns: The table rows of several series.
        training: bool (table rows,): which of them are for training.
        by_window: Each window is scaled by itself: the levels do not matter.
    """
    if by_window or len(columns.series) < 2:
        return []
    findings = []
    for place, name in enumerate(columns.names):
        means, swings = [], []
        known = columns.observed[:, place] & training
        for first, end in columns.spans():
            seen = columns.values[first:end, place][known[first:end]]
            if len(seen) > 1 and not is_constant(seen):
                means.append(float(seen.mean()))
                swings.append(float(seen.std()))
        if len(means) < 2:
            continue
        together = float(columns.values[known, place].std())
        hidden = int((together > APART * np.array(swings)).sum())
        if not hidden:
            continue
        message = (
            f"column {name!r} stands at {value_text(min(means))} to {value_text(max(means))} on average in {len(means)} series, and "
            f"{hidden} of them {'swings' if hidden == 1 else 'swing'} by less than a tenth of the deviation of all, {value_text(together)}: one mean and one "
            "deviation for all hide what they do"
        )
        findings.append(Finding(kind="series", message=message, hint=option("scaling", "window")))
    return findings
