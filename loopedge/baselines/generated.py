"""The baselines that a task has of its own, in words."""

from dataclasses import replace
from functools import partial

from loopedge.baselines.attempts import JUDGED, Judged, attempt
from loopedge.baselines.scores import BaselineScores
from loopedge.errors import InterruptedRunError, LoopedgeError
from loopedge.tasks.metrics import Metrics
from loopedge.tasks.task import Split, Task
from loopedge.user_code import reason_of

__all__ = ["own_baselines"]


def own_baselines(task: Task, samples: int) -> list[BaselineScores]:
    """Score what `Task.baselines` has: the task scores it as a whole, so there are no tallies.

    Args:
        task: Generated, or of one's own.
        samples: Most samples of a split.
    """
    try:
        scores = {split: task.baselines(split, samples) for split in JUDGED}
    except InterruptedRunError:
        raise
    except LoopedgeError as error:
        return [BaselineScores(name="the task's own", reason=error.message)]
    except Exception as error:  # user code may raise anything
        return [BaselineScores(name="the task's own", reason=reason_of(error))]
    found = []
    for name in scores["validation"]:
        words = name.replace("_", " ")
        scored = attempt(task, words, partial(_judged, name, scores))
        found.append(replace(scored, upper_bound=name in task.upper_bounds))
    return found


def _judged(name: str, scores: dict[Split, dict[str, Metrics]]) -> Judged:
    metrics = {split: scores[split].get(name, {}) for split in JUDGED}
    return Judged(about="", metrics=metrics, tallies={})
