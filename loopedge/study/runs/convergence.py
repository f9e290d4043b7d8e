"""Whether a run was still improving when its steps ended, read off the lines of its metrics file.

The learning rate falls towards the end of every run, so that the best step is nearly always one of the last: it says
nothing. What counts is how much the validation metric gained over the last quarter of the steps.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopedge.tasks.metrics import Metrics, metric_value

__all__ = ["Convergence", "judge_convergence", "least_gain"]

LAST = 0.75
"""Share of the steps where the last quarter begins."""
SHARE, BASELINE_SHARE = 0.5, 0.02
"""A gain counts from half the usual margin on, which is two percent of the best baseline's error."""
ERRORS = 1.645
"""Standard errors that a gain must stand above the least one: one in twenty by chance."""
TO_DEVIATION = 0.6745 * math.sqrt(6)
"""Median size of the second differences of noise with a standard deviation of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """What the last quarter of a run says.

    Args:
        converged: It did not gain more than counts; None: too few evaluations to tell.
        gain: Of the validation metric over that quarter, positive: it became better.
        error: Standard error of the gain, from the noise of the evaluations.
        least: Gain that counts.
    """

    converged: bool | None
    gain: float
    error: float
    least: float

    def to_json(self) -> dict[str, float]:
        """Return what the last quarter gained, its error and the gain that counts."""
        return {"gain": self.gain, "error": self.error, "least": self.least}


def judge_convergence(
    lines: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    higher_is_better: bool,
    least: float,
    steps: int,
) -> Convergence:
    """Judge a run by the slope of its last quarter, which a single lucky or unlucky evaluation does not move.

    The slope is the median of those between all pairs of evaluations (Theil-Sen). Its error follows from the noise
    of the evaluations, which the second differences of the last half show whatever the trend.

    Args:
        lines: Of the metrics file, in their order.
        metric: Key of ``validation``.
        higher_is_better: Its direction.
        least: Gain that counts, in the metric's unit.
        steps: Of the run.
    """
    sign = 1.0 if higher_is_better else -1.0
    points = [
        (line["step"], sign * metric_value(line["validation"], metric))
        for line in lines
        if math.isfinite(metric_value(line["validation"], metric))
    ]
    last = [point for point in points if point[0] >= LAST * steps]
    if len(last) < 3:
        last = points[-3:]
    if len(last) < 3:
        return Convergence(converged=None, gain=math.nan, error=math.nan, least=least)
    span = (1 - LAST) * steps
    slopes = [
        (after[1] - before[1]) / (after[0] - before[0])
        for place, before in enumerate(last)
        for after in last[place + 1 :]
    ]
    gain = statistics.median(slopes) * span
    middle = statistics.fmean(step for step, _ in last)
    spread = math.sqrt(sum((step - middle) ** 2 for step, _ in last))
    error = _noise([value for step, value in points if step >= steps / 2]) * span / spread
    return Convergence(
        converged=gain - ERRORS * error <= least, gain=gain, error=error, least=least
    )


def least_gain(
    baselines: Mapping[str, Metrics],
    validation: Metrics,
    metric: str,
    *,
    higher_is_better: bool,
) -> float:
    """Return the gain over the last quarter that counts, in the metric's unit: half of the usual margin.

    Args:
        baselines: Scores that need no training.
        validation: Of the run itself, where there is no baseline.
        metric: The one that decides.
        higher_is_better: Its direction; then the error of a share is what is missing to 1.
    """
    known = [metric_value(scores, metric) for scores in baselines.values()]
    known = [value for value in known if math.isfinite(value)]
    known = known or [metric_value(validation, metric)]
    best = max(known) if higher_is_better else min(known)
    error = 1 - best if higher_is_better and 0 <= best < 1 else abs(best)
    return SHARE * BASELINE_SHARE * error


def _noise(values: Sequence[float]) -> float:
    """Return the standard deviation of noise around a smooth curve."""
    second = [
        abs(after - 2 * at + before)
        for before, at, after in zip(values, values[1:], values[2:], strict=False)
    ]
    return statistics.median(second) / TO_DEVIATION if second else 0.0
