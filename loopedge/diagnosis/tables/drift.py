"""How the level of a target moves from the training rows to the test rows."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.tables.training_rows import Piece, target_pieces
from loopedge.options import option
from loopedge.tasks.series import SeriesTask

__all__ = ["Drift", "advise_scaling", "measure_drift"]

SHIFTED = 1.0
"""Training deviations by which the mean of the test rows differs: half of them are past most of what was seen."""
OUTSIDE = 0.1
"""Share of test rows outside the range of training from which on it is said."""
SPREAD = 2.0
"""By this factor the swing of the test rows is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The median over the series of the target that drifts most.

    Args:
        target: Which one.
        level: Mean of the test rows less that of training, in deviations of the training rows.
        swing: Deviation of the test rows as a multiple of that of training, each around its own straight line.
        outside: Share of the test rows outside the range of training.
        trend: Share of the variance of the training rows that a straight line explains.
        slope: Of that line, in training deviations over the whole of training.
    """

    target: str
    level: float
    swing: float
    outside: float
    trend: float
    slope: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_drift(task: SeriesTask) -> Drift | None:
    """Compare test rows with training rows; None where no series has enough of both."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for piece in target_pieces(task):
        figures = _figures(piece)
        if figures is not None:
            found.setdefault(piece.name, []).append(figures)
    if not found:
        return None
    medians = {name: np.median(np.array(each), axis=0).tolist() for name, each in found.items()}
    name = max(medians, key=lambda each: abs(medians[each][0]))
    level, swing, outside, trend, slope = medians[name]
    return Drift(target=name, level=level, swing=swing, outside=outside, trend=trend, slope=slope)


def _figures(piece: Piece) -> tuple[float, ...] | None:
    """Return level, swing, outside, trend and slope of one series."""
    trained, tested = piece.values[: piece.train], piece.values[piece.test : piece.end]
    at, later = np.arange(len(trained)), np.arange(len(tested))
    at, later = at[np.isfinite(trained)], later[np.isfinite(tested)]
    trained, tested = trained[np.isfinite(trained)], tested[np.isfinite(tested)]
    spread = float(trained.std()) if len(trained) else 0.0
    if len(trained) < 8 or len(tested) < 4 or not spread > 1e-12 * float(np.abs(trained).max()):
        return None
    slope, around = _line(at, trained)
    beyond = (tested < trained.min()) | (tested > trained.max())
    return (
        float(tested.mean() - trained.mean()) / spread,
        _line(later, tested)[1] / max(around, 1e-12 * spread),
        float(beyond.mean()),
        1 - around**2 / spread**2,
        slope * len(trained) / spread,
    )


def _line(at: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the slope of the straight line through values, and their deviation around it."""
    centred = at - at.mean()
    slope = float(centred @ values / max(float(centred @ centred), 1e-12))
    return slope, float((values - values.mean() - slope * centred).std())


def advise_scaling(found: Drift, *, scaled_by: str) -> list[Advice]:
    """Say where the level of the test rows is another one than that of training."""
    advice = []
    moved = abs(found.level) >= SHIFTED and found.outside >= OUTSIDE
    if moved and scaled_by != "window":
        way = "above" if found.level > 0 else "below"
        message = (
            f"{found.target!r} drifts: in test its mean is {abs(found.level):.1f} deviations {way} that of training, and "
            f"{found.outside:.0%} of the test rows are values that training never shows"
        )
        advice.append(
            Advice(kind="drift", message=message, option=option("scaling", "window"), weight=0.95)
        )
    if not 1 / SPREAD < found.swing < SPREAD:
        times = f"{found.swing:.1f} times" if found.swing > 1 else f"{found.swing:.2f} times"
        message = f"{found.target!r} swings {times} as far in test as in training: validation errors say little of test"
        chosen = None if scaled_by == "window" else option("scaling", "window")
        advice.append(Advice(kind="drift", message=message, option=chosen, weight=0.7))
    return advice
