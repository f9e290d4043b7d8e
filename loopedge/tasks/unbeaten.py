"""Whether a trained model is worth more than what needs no training: one line where it is not."""

import math
from collections.abc import Mapping

from loopedge.tasks.metrics import metric_value
from loopedge.tasks.task import Task

__all__ = ["unbeaten_note"]


def unbeaten_note(
    task: Task,
    score: Mapping[str, float | None],
    baselines: Mapping[str, Mapping[str, float | None]],
    *,
    where: str = "the test split",
) -> str | None:
    """Say that a model does not beat the best of its task's baselines by the metric that decides.

    Baselines that the task calls `Task.upper_bounds` need not be beaten.

    Args:
        task: Names the metric and its direction.
        score: What the model reached.
        baselines: What needs no training reached on the same samples.
        where: What was scored, for the line.

    Returns:
        One line; None where the model beats them all, or there is none.
    """
    name, reached = task.metric, metric_value(score, task.metric)
    if not baselines:
        return None
    known = {
        baseline: metric_value(metrics, name)
        for baseline, metrics in baselines.items()
        if baseline not in task.upper_bounds and math.isfinite(metric_value(metrics, name))
    }
    if not known:
        return None
    best = (max if task.higher_is_better else min)(known, key=lambda each: known[each])
    base = known[best]
    if (reached > base) if task.higher_is_better else (reached < base):
        return None
    if reached == base:
        by = "the same"
    elif not math.isfinite(reached):
        by = "no number"
    elif task.higher_is_better:
        by = f"{base - reached:.2g} less"
    elif base > 0:
        by = f"{reached / base:.3g} times as much"
    else:
        by = f"{reached - base:.2g} more"
    return f"the model does not beat the baseline {best} on {where}: {name} {reached:.4g} against {base:.4g}, {by}"
