"""How many rows before a row it takes to explain what can be explained."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.baselines.resampling import block_length
from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.tables.lagged import Lagged
from loopedge.diagnosis.tables.surrogate import base_errors, held_out_errors
from loopedge.options import option
from loopedge.tasks.task import Array

__all__ = ["LookBack", "advise_context", "find_look_back"]

SHARE = 0.9
"""Of the best explained share."""
TOLERANCE = 0.01
"""What of the base's error does not matter."""
SURE = 3.0
"""Standard errors by which the best regression must beat what knows no lag."""
LEAST_PIECES = 10
"""Blocks of held-out windows that are compared: of few no error is known, and a series that swings asks for few."""
FINE = 32
"""A look-back is found to this part of itself."""
WORSE = 1.05
"""A shorter context is offered where its error is at most so many times the best one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBack:
    """The fewest rows whose regression explains 90 % of what the best one explains.

    Args:
        rows: How many; None where no regression explains anything beyond noise.
        enough: The fewest rows that were tried whose error is at most 5 % above the least one; None as ``rows``.
        context: Of the task.
        searched: Most rows that were tried.
        explained: By rows tried: which share of the error of the base is taken away, on validation windows. The base is
            the better of the training mean and the last value.
        regression: The better one at ``rows``: ridge or boosting.
        errors: Squared errors at ``rows``, or of the base: float64 (windows, outputs); not in the JSON.
        base: Squared errors of the base; not in the JSON.
    """

    rows: int | None
    enough: int | None
    context: int
    searched: int
    explained: dict[int, float]
    regression: str
    errors: Array
    base: Array

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        fields = asdict(self)
        del fields["errors"], fields["base"]
        return fields | {"explained": {str(k): round(v, 4) for k, v in self.explained.items()}}


def find_look_back(fit: Lagged, held: Lagged, *, context: int, searched: int) -> LookBack:
    """Search powers of two, then between the last that is too short and the first that is enough.

    Args:
        fit: Training windows of ``searched`` rows.
        held: Validation windows of as many.
        context: Of the task.
        searched: Most rows.
    """
    base = base_errors(fit, held)
    level = np.maximum(base.mean(axis=0), 1e-12)
    tried: dict[int, tuple[float, Array, str]] = {}

    def explained(rows: int) -> float:
        if rows not in tried:
            errors, name = held_out_errors(fit, held, rows)
            tried[rows] = (1 - float((errors.mean(axis=0) / level).mean()), errors, name)
        return tried[rows][0]

    grid = sorted(
        {*(2**power for power in range(searched.bit_length())), min(context, searched), searched}
    )
    best = max(explained(rows) for rows in grid)
    top = max(grid, key=explained)
    found: int | None = None
    if _sure(base / level, tried[top][1] / level):
        enough = max(min(SHARE * best, best - TOLERANCE), 0.0)
        found = next(rows for rows in grid if explained(rows) >= enough)
        short = max((rows for rows in grid if rows < found), default=0)
        while found - short > max(1, found // FINE):
            middle = (found + short) // 2
            if explained(middle) >= enough:
                found = middle
            else:
                short = middle
    left = {rows: 1 - each[0] for rows, each in tried.items()}
    near = min(
        rows for rows, each in left.items() if each <= WORSE * max(min(left.values()), 1e-12)
    )
    return LookBack(
        rows=found,
        enough=None if found is None else max(near, found),
        context=context,
        searched=searched,
        explained={rows: tried[rows][0] for rows in sorted(tried)},
        regression=tried[top if found is None else found][2],
        errors=base if found is None else tried[found][1],
        base=base,
    )


def _sure(base: Array, errors: Array) -> bool:
    """Tell whether errors are lower by more than chance: blocks of neighbours count as one sample each.

    What counts is the share that each block gains: one wild spell holds most of all squared errors.
    """
    base, errors = base.mean(axis=1), errors.mean(axis=1)
    gain = base - errors
    if len(gain) < 8 or not gain.mean() > TOLERANCE * base.mean():
        return False
    pieces = max(min(LEAST_PIECES, len(gain) // 4), len(gain) // block_length(gain))
    parts = np.array_split(np.stack([gain, base]), pieces, axis=1)
    shares = np.array([part[0].sum() / max(float(part[1].sum()), 1e-12) for part in parts])
    shares = np.clip(shares, -1, 1)
    error = float(shares.std(ddof=1)) / np.sqrt(pieces)
    return bool(shares.mean() > SURE * error)


def advise_context(found: LookBack, least: int = 1) -> list[Advice]:
    """Say where the context is too short, or twice what is enough.

    Args:
        found: The look-back.
        least: Rows that a context has at least, as the shortest that the task allows.
    """
    if found.rows is None or found.enough is None:
        return []
    rows, enough = max(found.rows, least), max(found.enough, least)
    if rows > found.context:
        message = (
            f"{found.context} rows look back too short: they take away {_percent(found, found.context)} of what the last value "
            f"or the mean leaves open, {rows} rows {_percent(found, rows)}"
        )
        return [
            Advice(kind="look-back", message=message, option=option("context", rows), weight=0.9)
        ]
    if enough * 2 <= found.context:
        message = f"{enough} rows explain as much as {found.context}, and cost less"
        return [
            Advice(kind="look-back", message=message, option=option("context", enough), weight=0.3)
        ]
    return []


def _percent(found: LookBack, rows: int) -> str:
    return f"{max(_near(found.explained, rows), 0):.0%}"


def _near(explained: dict[int, float], rows: int) -> float:
    """Return what the largest number of rows explains that is not above ``rows``."""
    return explained[max((tried for tried in explained if tried <= rows), default=min(explained))]
