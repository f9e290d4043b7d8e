"""Whether float32 can tell the values of a column apart: about zero, and once they are centred."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.data.tables.findings import Finding
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option
from loopedge.units import value_text

__all__ = ["FINE", "LOST", "Precision", "judge_precision", "precision_findings"]

FINE = 0.01
"""Most that a rounded value may be off, as a share of a typical step between two table rows.

Measured on random walks and on noise, as the RMSE of repeating the last value, rounded against exact: at a share of
0.01 it differs by less than 0.01 %, at 0.1 by 0.2 %, at 0.5 by 4 %, at 1 by 14 %."""
LOST = 0.5
"""From this share on, two values that follow each other become one."""

ROUNDING, READ = 2.0**-24, 2.0**-53
"""What float32, and the float64 that tables are read into, round off at most, as a share of a value."""
MOST_ROWS, RUNS = 1 << 17, 16
"""Table rows of a series that are judged where there are more, and in how many runs."""
MOST_SERIES = 1024
"""Series that are judged, evenly spread, where there are more."""

Verdict = Literal["float32", "wide", "blurred", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What float32 rounds off a column, as shares of a typical step between two table rows.

    Args:
        level: Typical size of a value.
        step: Typical size of a step that is not zero; where no value moves within a series, the deviation.
        about_zero: What float32 rounds off the values as they are.
        centred: The same once the mean is subtracted in float64, or what float64 rounds off where that is more.
    """

    level: float
    step: float
    about_zero: float
    centred: float

    @property
    def verdict(self) -> Verdict:
        """``float32`` will do; it will do once centred: ``wide``; even then it is ``blurred``, or ``lost``."""
        if self.about_zero <= FINE:
            return "float32"
        if self.centred <= FINE:
            return "wide"
        return "blurred" if self.centred < LOST else "lost"


def judge_precision(
    columns: Columns, place: int, mean: float, *, by_window: bool = False
) -> Precision:
    """Judge a column: what float32 rounds off its values against the steps from table row to table row.

    A step counts where both values were observed and differ, for a value that stays says nothing of how
    finely it is measured. Each series is judged for itself, and the worst one decides.

    Args:
        columns: The table rows.
        place: Which column.
        mean: Of its training values: what a model subtracts.
        by_window: A model subtracts the mean of each window instead, which is near all its values.

    Returns:
        The shares of the worst series; those of a column that is constant are zero.
    """
    spans = list(columns.spans())
    if len(spans) > MOST_SERIES:
        taken = np.linspace(0, len(spans) - 1, MOST_SERIES).round().astype(np.int64)
        spans = [spans[number] for number in taken]
    values, observed = columns.values[:, place], columns.observed[:, place]
    judged = []
    for first, end in spans:
        rows = _some_rows(first, end)
        judged.append(_judge(values[rows], observed[rows], mean, by_window=by_window))
    found = [one for one in judged if one is not None]
    if found:
        return max(found, key=lambda one: (one.about_zero, one.centred))
    seen = values[observed]
    spread = float(seen.std()) if len(seen) else 0.0
    level = float(np.median(np.abs(seen))) if len(seen) else 0.0
    if spread <= 4 * READ * level:
        return Precision(level=level, step=0.0, about_zero=0.0, centred=0.0)
    return _shares(level, float(np.median(np.abs(seen - mean))), spread)


def _some_rows(first: int, end: int) -> slice | Array:
    """Return the table rows of a series, of a long one evenly spread runs: copies of all would take its memory again."""
    if end - first <= MOST_ROWS:
        return slice(first, end)
    run = MOST_ROWS // RUNS
    starts = np.linspace(first, end - run, RUNS).astype(np.int64)
    return (starts[:, None] + np.arange(run)).reshape(-1)


def _judge(values: Array, observed: Array, mean: float, *, by_window: bool) -> Precision | None:
    """Return the shares of one series; None where no value of it moves."""
    steps = np.abs(np.diff(values))[observed[1:] & observed[:-1]]
    steps = steps[steps > 0]
    if not len(steps):
        return None
    seen = values[observed]
    step = float(np.median(steps))
    level = float(np.median(np.abs(seen)))
    if by_window:  # a window's values are a few steps from its mean
        return _shares(level, 0.0, step)
    return _shares(level, float(np.median(np.abs(seen - mean))), step)


def _shares(level: float, distance: float, step: float) -> Precision:
    return Precision(
        level=level,
        step=step,
        about_zero=ROUNDING * level / step,
        centred=max(ROUNDING * distance, READ * level) / step,
    )


def precision_findings(
    names: Sequence[str],
    found: Sequence[Precision],
    *,
    targets: int,
    source: str,
    grouped: bool,
    wide: bool | None = None,
) -> tuple[bool, tuple[Finding, ...]]:
    """Say what float32 rounds off columns, and whether a model of them must be wide.

    Args:
        names: Of the columns, targets first.
        found: What `judge_precision` found of each.
        targets: How many of them are targets.
        source: What errors call the data.
        grouped: There are several series: their levels may be what is far apart.
        wide: Whether the model, which is trained already, is wide; None: it is not trained yet.

    Returns:
        Whether the model is wide, and findings.

    Raises:
        InputError: A model that is not trained yet could not tell a column's values apart, wide or not.
    """
    findings = []
    for place, (name, one) in enumerate(zip(names, found, strict=True)):
        if one.verdict == "float32":
            continue
        stands = (
            f"column {name!r} stands at about {value_text(one.level)} and moves by about {value_text(one.step)} "
            "from row to row"
        )
        if one.verdict == "lost" and wide is None:
            raise InputError(
                f"{source}: {stands}: float32 rounds off {value_text(one.centred * one.step)} even once the mean is "
                "subtracted, so a model cannot tell its values apart",
                hint=_way_out(name, target=place < targets, grouped=grouped),
            )
        half = float(np.spacing(np.float32(one.level))) / 2
        rounded = f"float32 rounds off up to {value_text(half)} there"
        if wide is False:
            findings.append(
                Finding(
                    kind="precision",
                    message=f"{stands}: {rounded}, and the model takes and gives float32",
                    hint="train it again: a new model takes such columns in float64",
                )
            )
        elif one.verdict == "wide":
            findings.append(
                Finding(
                    kind="precision",
                    message=f"{stands}: {rounded}, so the model takes and gives float64",
                )
            )
        else:
            findings.append(
                Finding(
                    kind="precision",
                    message=f"{stands}: float32 rounds off {one.centred:.0%} of such a step even once the mean is "
                    "subtracted",
                    hint=_way_out(name, target=place < targets, grouped=grouped),
                )
            )
    needed = any(one.verdict != "float32" for one in found)
    return needed if wide is None else wide, tuple(findings)


def _way_out(name: str, *, target: bool, grouped: bool) -> str:
    ways = [f"add {option('scaling', 'window')}, which subtracts each window's own mean"]
    if not grouped:
        ways = [f"write the differences of {name!r} from row to row instead, if it counts"]
    if not target:
        ways.append(f"leave {name!r} out, if it is an id or a time")
    return ", or ".join(ways)
