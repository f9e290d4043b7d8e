"""One line says that a model is worth no more than what needs no training."""

import math
from typing import Any

import pytest

from loopedge.tasks.metrics import Metrics
from loopedge.tasks.task import Batch, Split, Task
from loopedge.tasks.unbeaten import unbeaten_note


class Labels(Task):
    name = "labels"

    def batch(self, split: Split, size: int, step: int) -> Batch:
        raise NotImplementedError

    def model_fields(self) -> dict[str, Any]:
        raise NotImplementedError


class Forecast(Labels):
    kind = "values"
    upper_bounds = ("oracle",)


BASELINES = {"last": {"rmse": 4.0}, "seasonal": {"rmse": 2.0}, "oracle": {"rmse": 0.5}}


@pytest.mark.parametrize(
    ("reached", "baselines", "end"),
    [
        (10.0, BASELINES, "baseline seasonal on the test split: rmse 10 against 2, 5 times as much"),
        (3.0, BASELINES, "rmse 3 against 2, 1.5 times as much"),
        (2.0, BASELINES, "rmse 2 against 2, the same"),
        (math.nan, BASELINES, "rmse nan against 2, no number"),
        (0.5, {"last": {"rmse": 0.0}}, "rmse 0.5 against 0, 0.5 more"),
        (3.0, {"last": {"rmse": math.nan}, "seasonal": {"rmse": 2.5}}, "against 2.5, 1.2 times as much"),
    ],
)  # fmt: skip
def test_an_error_that_is_no_smaller(
    reached: float, baselines: dict[str, Metrics], end: str
) -> None:
    note = unbeaten_note(Forecast(), {"rmse": reached, "mae": 0.0}, baselines)
    assert note is not None
    assert note.startswith("the model does not beat the baseline ")
    assert note.endswith(end)


def test_a_share_that_is_no_larger() -> None:
    known = {"most_frequent": {"accuracy": 0.75}}
    note = unbeaten_note(Labels(), {"accuracy": 0.5}, known, where="the validation split")
    assert note == (
        "the model does not beat the baseline most_frequent on the validation split: "
        "accuracy 0.5 against 0.75, 0.25 less"
    )


@pytest.mark.parametrize(
    ("task", "score", "baselines"),
    [
        (Forecast(), {"rmse": 1.9}, BASELINES),
        (Labels(), {"accuracy": 0.8}, {"most_frequent": {"accuracy": 0.75}}),
        (Forecast(), {"rmse": 9.0}, {}),
        (Forecast(), {"rmse": 9.0}, {"oracle": {"rmse": 0.5}}),
        (Forecast(), {"rmse": 9.0}, {"other": {"mae": 0.5}}),
    ],
)
def test_nothing_is_said_of_a_model_that_is_worth_its_training(
    task: Task, score: Metrics, baselines: dict[str, Metrics]
) -> None:
    assert unbeaten_note(task, score, baselines) is None
