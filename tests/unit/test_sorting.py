"""The sorting task: what is asked, and how it is scored."""

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.task import SPLITS, task_from_dict

TASK = SortingTask(length=5, vocab=9)


def test_a_sample_is_tokens_separator_blanks_and_the_answer_stands_at_the_blanks() -> None:
    batch = TASK.batch("train", 7, 3)
    assert batch.inputs.shape == batch.targets.shape == (7, 11)
    assert (batch.inputs[:, 5] == 9).all()
    assert (batch.inputs[:, 6:] == 10).all()
    assert (batch.targets[:, :6] == IGNORED).all()
    np.testing.assert_array_equal(batch.targets[:, 6:], np.sort(batch.inputs[:, :5], axis=1))


def test_batches_are_those_of_seed_split_and_step() -> None:
    again = SortingTask(length=5, vocab=9).batch("test", 4, 8)
    np.testing.assert_array_equal(TASK.batch("test", 4, 8).inputs, again.inputs)
    different = [
        TASK.batch("test", 4, 9),
        TASK.batch("train", 4, 8),
        SortingTask(length=5, vocab=9, seed=1).batch("test", 4, 8),
    ]
    assert all((batch.inputs != again.inputs).any() for batch in different)


def test_a_perfect_answer_scores_one_and_a_wrong_place_counts() -> None:
    batch = TASK.batch("test", 10, 0)
    logits = np.eye(11)[batch.targets.clip(0)]
    assert TASK.score(logits, batch.targets) == {"accuracy": 1.0, "sequence_accuracy": 1.0}
    logits[0, 6] = np.roll(logits[0, 6], 1)
    assert TASK.score(logits, batch.targets) == {"accuracy": 0.98, "sequence_accuracy": 0.9}


def test_an_evaluation_has_as_many_samples_as_asked_each_time_the_same() -> None:
    first, second = (
        np.concatenate([batch.inputs for batch in TASK.evaluation("validation", 8, 20)])
        for _ in range(2)
    )
    assert len(first) == 20
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("split", SPLITS)
def test_the_baseline_is_scored_like_a_model(split: str) -> None:
    scores = TASK.baselines(split, 200)["expected_order"]  # type: ignore[arg-type]
    assert 1 / 9 < metric_value(scores, "accuracy") < 0.6
    assert set(scores) == {"accuracy", "sequence_accuracy"}


def test_the_description_rebuilds_the_task() -> None:
    rebuilt = task_from_dict(TASK.describe())
    np.testing.assert_array_equal(
        rebuilt.batch("train", 3, 1).inputs, TASK.batch("train", 3, 1).inputs
    )
    reseeded = task_from_dict(TASK.describe(), seed=5)
    assert (reseeded.batch("train", 3, 1).inputs != TASK.batch("train", 3, 1).inputs).any()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"length": 1, "vocab": 4}, "length is 1"), ({"length": 4, "vocab": 1}, "vocab is 1")],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SortingTask(**sizes)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({}, "task None is none that loopedge knows"),
        ({"name": "chess"}, "'chess' is none that loopedge knows"),
        ({"name": "sorting", "length": 4}, "lacks 'vocab'"),
        ({"name": "series"}, "needs its data"),
    ],
)
def test_a_description_that_cannot_be_used(description: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        task_from_dict(description)
