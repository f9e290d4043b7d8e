"""How much of the target the rows before it explain, by forecast step, and how much stays noise."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.diagnosis.tables.lagged import Lagged
from loopedge.diagnosis.tables.look_back import LookBack
from loopedge.options import option

__all__ = ["Forecastability", "Step", "advise_horizon", "measure_forecastability"]

LITTLE = 0.05
"""Below this share of the variance, or of the base's error, hardly anything is explained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is explained at a forecast step, on validation windows.

    Args:
        step: From 1; 0 for labels.
        r2: Share of the variance of the validation values; below 0 where their own mean is nearer.
        gain: Share of the error of the better of the training mean and the last value.
    """

    step: int
    r2: float
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecastability:
    """What a plain regression explains, and what nothing that was tried explains: an upper bound of the noise.

    Args:
        steps: Of the horizon: first, middle and last; the mean over the targets.
        noise: Share of the variance that stays at the first of them.
        regression: ridge or boosting.
        rows: It sees so many.
        windows: It was measured on so many.
    """

    steps: list[Step]
    noise: float
    regression: str
    rows: int
    windows: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_forecastability(held: Lagged, look_back: LookBack) -> Forecastability:
    """Return what is explained at each step, from the errors at the look-back."""
    variance = np.maximum(held.targets.var(axis=0), 1e-12)
    r2 = 1 - look_back.errors.mean(axis=0) / variance
    gain = 1 - look_back.errors.mean(axis=0) / np.maximum(look_back.base.mean(axis=0), 1e-12)
    steps = np.array(held.steps)
    found = [
        Step(step=step, r2=float(r2[steps == step].mean()), gain=float(gain[steps == step].mean()))
        for step in dict.fromkeys(held.steps)
    ]
    return Forecastability(
        steps=found,
        noise=min(1.0, max(0.0, 1 - found[0].r2)),
        regression=look_back.regression,
        rows=look_back.rows or 0,
        windows=len(held.targets),
    )


def advise_horizon(found: Forecastability, look_back: LookBack) -> list[Advice]:
    """Say where nothing can be forecast, or only the first steps."""
    if look_back.rows is None:
        nothing = "the last value or the mean" if found.steps[0].step else "the class frequencies"
        message = (
            f"up to {look_back.searched} rows before it explain nothing that {nothing} would not say as well: "
            "for plain regressions it is noise"
        )
        return [Advice(kind="forecastability", message=message, weight=1.0)]
    first, last = found.steps[0], found.steps[-1]
    if len(found.steps) < 2 or first.r2 < 2 * LITTLE or max(last.r2, last.gain) >= LITTLE:
        return []
    kept = max((each.step for each in found.steps if max(each.r2, each.gain) >= LITTLE), default=1)
    message = f"step {first.step} is explained by {first.r2:.0%} of its variance, step {last.step} by {max(last.r2, 0):.0%}"
    return [
        Advice(kind="forecastability", message=message, option=option("horizon", kept), weight=0.6)
    ]
