"""Twelve series whose next value follows from known rows before it: eleven with a look-back, and noise.

A rule that settles at one level has no look-back, whatever rows it names. Two rules of the first draft did, and were written
anew: `squashed sum` and `far threshold`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loopedge.data.tables.columns import Columns
from loopedge.files.arrays import Array
from loopedge.tasks.series import SeriesTask

__all__ = ["TARGETS", "Target", "task_of"]

ROWS = 4000
LEFT_OUT = 200
"""Rows before a series forgets how it began."""

Rule = Callable[[Array, float], float]
"""The rows so far and a normal number to the next row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A rule of the next row.

    Args:
        about: What it is, in words.
        look_back: The farthest row that it takes; None: it takes none.
        rule: Makes the next row.
    """

    about: str
    look_back: int | None
    rule: Rule

    def series(self, seed: int, rows: int = ROWS) -> Array:
        """Return float64 (rows,)."""
        draw = np.random.default_rng([seed, 22])
        values = np.concatenate([draw.normal(size=64), np.zeros(LEFT_OUT + rows)])
        noise = draw.normal(size=len(values))
        for row in range(64, len(values)):
            values[row] = self.rule(values[:row], noise[row])
        return values[-rows:]


def switch(y: Array, noise: float) -> float:
    """Jump between two levels by the sign of the fifth row before."""
    return (1.0 if y[-5] > 0 else -1.0) * (1 if abs(noise) < 2.2 else -1) + 0.2 * noise


def far(y: Array, noise: float) -> float:
    """Jump between two levels by the sign of the thirtieth row before, one time in ten to the other one."""
    return (1.0 if y[-30] > 0 else -1.0) * (1 if abs(noise) < 1.645 else -1) + 0.2 * noise


def gate(y: Array, noise: float) -> float:
    """Keep or turn the last row by the sign of the ninth before."""
    return (0.9 if y[-9] > 0 else -0.9) * float(y[-1]) + 0.6 * noise


TARGETS: dict[str, Target] = {
    "persistence": Target(
        about="0.8 of the last row", look_back=1, rule=lambda y, e: 0.8 * y[-1] + e
    ),
    "oscillation": Target(
        about="two rows that swing", look_back=2, rule=lambda y, e: 1.6 * y[-1] - 0.9 * y[-2] + e
    ),
    "folded": Target(
        about="a sine of the third row before",
        look_back=3,
        rule=lambda y, e: 1.5 * np.sin(2 * y[-3]) + 0.5 * e,
    ),
    "switch": Target(about="one of two levels, by the fifth row before", look_back=5, rule=switch),
    "product": Target(
        about="the second row times the sixth, bounded",
        look_back=6,
        rule=lambda y, e: 1.5 * np.tanh(1.5 * y[-2] * y[-6]) + 0.4 * e,
    ),
    "week": Target(
        about="0.9 of the seventh row before", look_back=7, rule=lambda y, e: 0.9 * y[-7] + e
    ),
    "gate": Target(
        about="the last row, turned by the sign of the ninth before", look_back=9, rule=gate
    ),
    "year": Target(
        about="the last row and the twelfth before",
        look_back=12,
        rule=lambda y, e: 0.3 * y[-1] + 0.6 * y[-12] + e,
    ),
    "squashed sum": Target(
        about="the fourth row less the sixteenth, bounded",
        look_back=16,
        rule=lambda y, e: 1.2 * np.tanh(y[-4] - y[-16]) + 0.5 * e,
    ),
    "day": Target(
        about="0.9 of the row a day of 24 before", look_back=24, rule=lambda y, e: 0.9 * y[-24] + e
    ),
    "far threshold": Target(
        about="up or down by the thirtieth row before, one time in ten the other way",
        look_back=30,
        rule=far,
    ),
    "noise": Target(about="nothing", look_back=None, rule=lambda y, e: e),
}


def task_of(name: str, seed: int, *, context: int, rows: int = ROWS) -> SeriesTask:
    """Return the forecast of the next row of a target."""
    values = TARGETS[name].series(seed, rows)[:, None]
    columns = Columns(names=("y",), values=values, observed=np.ones(values.shape, bool))
    return SeriesTask(columns, horizon=1, context=context, seed=seed, source=name)
