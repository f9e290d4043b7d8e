"""The baselines of a task, by its kind: what a model must beat before it is worth anything."""

from loopedge.baselines.scores import BaselineScores
from loopedge.tasks.task import Task

__all__ = ["fair_baselines"]


def fair_baselines(task: Task, samples: int) -> list[BaselineScores]:
    """Fit and score every baseline that suits a task; one that fails is returned with its reason.

    Args:
        task: Its training part fits, its validation part chooses, its test part judges.
        samples: Most samples of an evaluation, as those of the models.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    raise NotImplementedError  # the helper of baselines fills this
