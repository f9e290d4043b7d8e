"""Evaluation of generated tasks: the samples do not depend on how many are scored at once."""

import numpy as np
import pytest

from loopedge.tasks.generated.countdown import CountdownTask
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.in_context import LinearInContextTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.generated.sudoku import SudokuTask
from loopedge.tasks.metrics import total
from loopedge.tasks.task import Task

TASKS = [
    CountdownTask(numbers=3, largest=9),
    EditDistanceTask(length=5),
    LinearInContextTask(dims=2, points=4),
    SortingTask(length=5, vocab=9),
    SudokuTask(box=2, blanks=6, puzzles=20),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_samples_do_not_depend_on_the_size_of_a_batch(task: Task) -> None:
    inputs, targets = (
        [
            np.concatenate([getattr(batch, name) for batch in task.evaluation("test", size, 300)])
            for size in (7, 128, 300)
        ]
        for name in ("inputs", "targets")
    )
    assert len(inputs[0]) == 300
    for found in (inputs, targets):
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])
    assert max(len(batch.inputs) for batch in task.evaluation("test", 7, 300)) == 7


def test_a_baseline_is_scored_on_the_samples_of_a_model() -> None:
    task = SortingTask(length=5, vocab=9)
    expected = ((np.arange(5) + 0.5) / 5 * 9).astype(np.int64)
    scored = total(
        task.tally(
            np.eye(11)[np.pad(np.tile(expected, (len(batch.targets), 1)), ((0, 0), (6, 0)))],
            batch.targets,
        )
        for batch in task.evaluation("test", 128, 300)
    )
    assert task.baselines("test", 300)["expected_order"] == pytest.approx(task.metrics(scored))
