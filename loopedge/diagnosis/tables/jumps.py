"""How much of what a target changes by happens in few steps from row to row."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.tables.training_rows import target_pieces
from loopedge.tasks.series import SeriesTask

__all__ = ["Jumps", "advise_jumps", "measure_jumps"]

FEW = 0.01
"""The steps that are looked at: the largest hundredth."""
JUMPY = 0.4
"""Share of the squared changes in the largest hundredth of the steps; 0.08 where changes are normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jumps:
    """Changes from one row to the next, of the target that jumps most.

    Args:
        target: Which one.
        concentration: Share of the squared changes that the largest hundredth of the steps holds: 0.08 of normal
            changes, 1 where nothing else ever changes.
        largest: The largest change, in deviations of the training rows.
        jumps: Share of the steps that change it by more than one deviation.
        still: Share of the steps that do not change it at all.
    """

    target: str
    concentration: float
    largest: float
    jumps: float
    still: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_jumps(task: SeriesTask) -> Jumps | None:
    """Look at the changes of each target, each series in its own deviations; None where nothing ever changes."""
    steps: dict[str, list[Any]] = {}
    for piece in target_pieces(task):
        trained = piece.values[: piece.train]
        seen = trained[np.isfinite(trained)]
        if len(seen) < 2 or not seen.std() > 1e-12 * np.abs(seen).max():
            continue
        changes = np.abs(np.diff(trained)) / seen.std()
        steps.setdefault(piece.name, []).append(changes[np.isfinite(changes)])
    found = [_jumps(name, np.concatenate(parts)) for name, parts in steps.items()]
    known = [each for each in found if each is not None]
    return max(known, key=lambda each: each.concentration) if known else None


def _jumps(name: str, changes: np.ndarray) -> Jumps | None:
    whole = float(np.square(changes).sum())
    if not whole > 0:
        return None
    few = max(1, round(FEW * len(changes)))
    largest = np.sort(changes)[-few:]
    return Jumps(
        target=name,
        concentration=float(np.square(largest).sum()) / whole,
        largest=float(changes.max()),
        jumps=float((changes > 1).mean()),
        still=float((changes == 0).mean()),
    )


def advise_jumps(found: Jumps) -> list[Advice]:
    """Say where few steps hold most of the change: a score of all windows hardly shows them."""
    if found.concentration < JUMPY or found.largest < 1:
        return []
    message = (
        f"{found.target!r} jumps: a hundredth of its steps holds {found.concentration:.0%} of its squared changes, the "
        f"largest is {found.largest:.1f} deviations; look at errors around jumps, a mean hides them"
    )
    return [Advice(kind="jumps", message=message, weight=0.6)]
