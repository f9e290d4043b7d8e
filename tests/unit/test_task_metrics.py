"""What a task takes for its metric unless it says so, and what is scored where nothing is asked."""

import math
from typing import Any

import numpy as np
import pytest

from loopedge.tasks.metrics import (
    IGNORED,
    class_metrics,
    class_tally,
    metric_value,
    total,
    value_metrics,
    value_tally,
)
from loopedge.tasks.task import Batch, Split, Task


class Classes(Task):
    name = "classes"

    def batch(self, split: Split, size: int, step: int) -> Batch:
        raise NotImplementedError

    def model_fields(self) -> dict[str, Any]:
        raise NotImplementedError


class Values(Classes):
    kind = "values"


class ValuesByRmse(Classes):
    kind = "values"
    metric = "rmse"


class Scored(Classes):
    kind = "values"
    metric = "r2"
    higher_is_better = True


class ScoredToo(Scored):
    pass


class ClassesAgain(Values):
    kind = "classes"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("task", "metric", "higher"),
    [
        (Classes, "accuracy", True),
        (Values, "rmse", False),
        (ValuesByRmse, "rmse", False),
        (Scored, "r2", True),
        (ScoredToo, "r2", True),
        (ClassesAgain, "accuracy", True),
    ],
)
def test_the_kind_decides_the_metric_that_is_not_given(
    task: type[Task], metric: str, higher: bool
) -> None:
    assert (task.metric, task.higher_is_better) == (metric, higher)


def test_where_nothing_is_asked_there_is_no_score() -> None:
    nothing = value_metrics(value_tally(np.zeros((2, 3, 1)), np.full((2, 3, 1), np.nan)))
    assert all(math.isnan(metric_value(nothing, name)) for name in nothing)
    empty = class_metrics(class_tally(np.zeros((2, 3, 4)), np.full((2, 3), IGNORED)))
    assert set(empty) == {"accuracy", "sequence_accuracy"}
    assert all(math.isnan(metric_value(empty, name)) for name in empty)


def test_a_row_that_asks_nothing_is_no_right_sequence() -> None:
    targets = np.array([[1, IGNORED], [IGNORED, IGNORED]])
    outputs = np.zeros((2, 2, 3))  # class 0 everywhere
    metrics = class_metrics(total([class_tally(outputs, targets)]))
    assert metrics == {"accuracy": 0.0, "sequence_accuracy": 0.0}
