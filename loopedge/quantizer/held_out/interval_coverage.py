"""How often the prediction intervals of the float model hold around a quantized file's forecasts."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.files.arrays import Array
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.task import Batch

__all__ = ["HeldInterval", "IntervalCoverage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInterval:
    """One level: which share of the values lies in the interval around each model's forecasts.

    ``level`` is in percent. The intervals of both are those of the float model.
    """

    level: int
    float_share: float
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class IntervalCoverage:
    """Counts the values inside, batch by batch.

    Args:
        intervals: Of the float model.
    """

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._asked = 0
        self._inside = {level.percent: [0, 0] for level in intervals.levels}

    def add(self, batch: Batch, exact: Array, given: Array) -> None:
        """Count a batch.

        Args:
            batch: As the task gives it.
            exact: (batch, horizon, targets), forecasts of the float model.
            given: Those of the quantized file.
        """
        units = self._intervals.units(batch.inputs, batch.attention_mask)
        self._asked += int((~np.isnan(batch.targets)).sum())
        for place, outputs in enumerate((exact, given)):
            for percent, (low, high) in self._intervals.around(outputs, units).items():
                inside = (low <= batch.targets) & (batch.targets <= high)
                self._inside[percent][place] += int(inside.sum())

    def shares(self) -> list[HeldInterval]:
        """Return the shares; none where nothing was asked."""
        if not self._asked:
            return []
        return [
            HeldInterval(level=percent, float_share=exact / self._asked, share=given / self._asked)
            for percent, (exact, given) in self._inside.items()
        ]
