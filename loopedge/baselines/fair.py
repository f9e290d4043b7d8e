"""The baselines of a task, by its kind: what a model must beat before it is worth anything."""

from importlib.util import find_spec

from loopedge.baselines.generated import own_baselines
from loopedge.baselines.labels import label_baselines
from loopedge.baselines.pairs import pair_baselines
from loopedge.baselines.scores import BaselineScores
from loopedge.baselines.series.all import series_baselines
from loopedge.baselines.texts import text_baselines
from loopedge.errors import MissingExtraError
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.pairs import PairsTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.tasks.text import TextTask

__all__ = ["fair_baselines", "fixed_evaluation"]

FIXED = (SeriesTask, LabelledSeriesTask, TextTask, PairsTask)
"""Tasks that read a file: they are evaluated on the same samples whatever the seed."""
FITTED = (SeriesTask, LabelledSeriesTask)
"""Tasks some of whose baselines scikit-learn fits."""


def fair_baselines(task: Task, samples: int) -> list[BaselineScores]:
    """Fit and score every baseline that suits a task; one that fails is returned with its reason.

    They are fitted on the training part, chosen on the validation samples of `Task.evaluation` and judged on those and on
    the test samples. No seed changes them.

    Args:
        task: A table, a text, pairs, or a task whose own baselines are taken.
        samples: Most samples of an evaluation, as those of the models.

    Raises:
        MissingExtraError: The task is a table and scikit-learn is not installed.
    """
    if isinstance(task, FITTED) and find_spec("sklearn") is None:
        raise MissingExtraError("fitting plain baselines to a table", extra="pilot")
    if isinstance(task, SeriesTask):
        return series_baselines(task, samples)
    if isinstance(task, LabelledSeriesTask):
        return label_baselines(task, samples)
    if isinstance(task, TextTask):
        return text_baselines(task, samples)
    if isinstance(task, PairsTask):
        return pair_baselines(task, samples)
    return own_baselines(task, samples)


def fixed_evaluation(task: Task) -> bool:
    """Return whether a task is evaluated on the same samples whatever its seed.

    Then its baselines need to be fitted once for all seeds: those of tables, texts and pairs. A generated task draws
    other samples with each seed, and one of the user's own may.
    """
    return type(task) in FIXED
