"""Countdown: the reference reaches the target, and any right way to it counts as solved."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.errors import InputError
from loopedge.tasks.generated.countdown import CountdownTask, check_steps
from loopedge.tasks.generated.countdown_steps import combine, first_solution, random_steps
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.task import Array, task_from_dict

TASK = CountdownTask(numbers=4, largest=10)
OPERATIONS: list[Callable[[int, int], float]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / b,
]


def reaches(numbers: list[int], goal: int, steps: list[list[int]]) -> bool:
    """Judge steps one after another."""
    free = Counter(numbers)
    for first, operation, second, result in steps:
        free[first] -= 1
        free[second] -= 1
        if min(free.values()) < 0 or min(first, second, result) < 1 or operation not in range(4):
            return False
        if OPERATIONS[operation](first, second) != result:
            return False
        free[result] += 1
    return steps[-1][3] == goal


def goals(numbers: tuple[int, ...], limit: int) -> set[int]:
    """Return every number that whole, positive results up to ``limit`` reach from all numbers."""
    if len(numbers) == 1:
        return set(numbers)
    found: set[int] = set()
    for i, first in enumerate(numbers):
        for j, second in enumerate(numbers):
            if i == j:
                continue
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            for operation in OPERATIONS:
                result = operation(first, second)
                if result == int(result) and 1 <= result <= limit:
                    found |= goals((*rest, int(result)), limit)
    return found


def tokens_of(steps: list[list[int]], task: CountdownTask) -> list[int]:
    """Write steps as the task does."""
    return [
        token + (task.limit + 1 if place == 1 else 0)
        for step in steps
        for place, token in enumerate(step)
    ]


@pytest.mark.parametrize("numbers", [3, 4, 5])
def test_a_sample_is_numbers_target_and_blanks_and_the_reference_solves_it(numbers: int) -> None:
    task = CountdownTask(numbers=numbers, largest=12)
    batch = task.batch("train", 30, 0)
    blanks = 4 * (numbers - 1)
    assert batch.inputs.shape == batch.targets.shape == (30, numbers + 1 + blanks)
    assert (batch.inputs[:, numbers + 1 :] == 0).all()
    assert (batch.targets[:, : numbers + 1] == IGNORED).all()
    assert batch.inputs[:, : numbers + 1].min() >= 1
    assert batch.inputs[:, :numbers].max() <= 12
    for row, target in zip(batch.inputs, batch.targets, strict=True):
        steps = target[numbers + 1 :].reshape(-1, 4) - np.array([0, task.limit + 1, 0, 0])
        assert reaches(row[:numbers].tolist(), row[numbers], steps.tolist())
        assert steps[:, 3].max() <= task.limit
        assert (steps[:, 0] >= steps[:, 2]).all()


@given(
    numbers=st.lists(st.integers(1, 9), min_size=3, max_size=4),
    choice=st.integers(0, 10**6),
    order=st.randoms(use_true_random=False),
)
def test_every_goal_is_found_whatever_the_order_of_the_numbers(
    numbers: list[int], choice: int, order: Any
) -> None:
    reachable = sorted(goals(tuple(numbers), 30))
    goal = reachable[choice % len(reachable)]
    steps = first_solution(np.array([numbers]), np.array([goal]), 30)
    assert reaches(numbers, goal, steps[0].tolist())
    shuffled = list(numbers)
    order.shuffle(shuffled)
    again = first_solution(np.array([shuffled]), np.array([goal]), 30)
    assert again.tolist() == steps.tolist()


def test_random_steps_use_every_operation_and_are_right() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.integers(1, 11, size=(400, 4))
    steps = random_steps(generator, numbers, 40)
    for given_numbers, found in zip(numbers, steps, strict=True):
        assert reaches(given_numbers.tolist(), found[-1, 3], found.tolist())
    assert np.bincount(steps[:, :, 1].ravel(), minlength=4).min() > 100


def test_what_has_no_whole_positive_result() -> None:
    results = combine(np.array([7, 6, 3, 0]), np.array([2, 3, 3, 0]))
    assert results.T.tolist() == [[9, 5, 14, 0], [9, 3, 18, 2], [6, 0, 9, 1], [0, 0, 0, 0]]


SOLUTION = [[5, 0, 3, 8], [8, 2, 2, 16], [16, 1, 6, 10]]
"""From 2 3 5 6 to 10."""


@pytest.mark.parametrize(
    ("steps", "right"),
    [
        (SOLUTION, True),
        ([[3, 0, 5, 8], [2, 2, 8, 16], [16, 1, 6, 10]], True),
        ([[6, 2, 2, 12], [12, 0, 3, 15], [15, 1, 5, 10]], True),  # another way
        ([[6, 2, 2, 12], [12, 0, 3, 15], [15, 0, 5, 20]], False),  # another target
        ([[5, 0, 3, 9], [9, 2, 2, 18], [18, 1, 6, 12]], False),  # wrong sum
        ([[5, 0, 3, 8], [8, 2, 2, 16], [16, 1, 6, 11]], False),
        ([[5, 0, 5, 10], [5, 0, 5, 10], [5, 0, 5, 10]], False),  # 5 is there once
        ([[6, 0, 4, 10], [5, 0, 3, 8], [8, 0, 2, 10]], False),  # 4 is not there
        ([[5, 1, 5, 0], [8, 2, 2, 16], [16, 1, 6, 10]], False),
        ([[5, -1, 3, 8], [8, 2, 2, 16], [16, 1, 6, 10]], False),  # no operation
        ([[5, 0, 3, 8], [8, 2, 0, 16], [16, 1, 6, 10]], False),  # no number
    ],
)
def test_an_answer_is_judged_by_its_steps(steps: list[list[int]], right: bool) -> None:
    answer, reference = np.array([steps]), np.array([SOLUTION])
    assert check_steps(answer, reference, 40).tolist() == [right]
    assert reaches([2, 3, 5, 6], 10, steps) == right


@given(
    seed=st.integers(0, 1000),
    place=st.integers(0, 11),
    token=st.integers(0, TASK.vocab - 1),
)
def test_a_changed_answer_is_solved_if_its_steps_still_reach_the_target(
    seed: int, place: int, token: int
) -> None:
    batch = TASK.batch("test", 1, seed)
    answer = batch.targets.copy()
    answer[0, 5 + place] = token
    score = TASK.score(logits_of(answer), batch.targets)
    numbers, goal = batch.inputs[0, :4].tolist(), int(batch.inputs[0, 4])
    steps = (answer[0, 5:].reshape(-1, 4) - np.array([0, TASK.limit + 1, 0, 0])).tolist()
    # A token of the wrong kind is neither a number of the game nor an operation.
    assert score["solved"] == reaches(numbers, goal, steps)


def logits_of(answer: Array) -> Array:
    logits: Array = np.eye(TASK.vocab)[answer.clip(0)]
    return logits


def test_a_solution_that_is_not_the_reference_is_solved_and_not_equal() -> None:
    batch = TASK.batch("test", 20, 0)
    perfect = TASK.score(logits_of(batch.targets), batch.targets)
    assert perfect == {"accuracy": 1.0, "sequence_accuracy": 1.0, "solved": 1.0}
    turned = batch.targets.copy()
    sums = turned[:, 6] == TASK.limit + 1  # a + b and b + a
    turned[sums, 5], turned[sums, 7] = batch.targets[sums, 7], batch.targets[sums, 5]
    assert (turned != batch.targets).any()
    score = TASK.score(logits_of(turned), batch.targets)
    assert score["solved"] == 1
    assert metric_value(score, "sequence_accuracy") < 1
    assert TASK.score(np.zeros((20, 17, TASK.vocab)), batch.targets)["solved"] == 0


def test_random_steps_are_the_baseline() -> None:
    scores = TASK.baselines("test", 500)["random_steps"]
    assert 0 < metric_value(scores, "solved") < 0.3
    assert scores == TASK.baselines("test", 500)["random_steps"]


def test_batches_are_those_of_seed_split_and_step() -> None:
    batch = TASK.batch("train", 5, 2)
    rebuilt = task_from_dict(TASK.describe()).batch("train", 5, 2)
    np.testing.assert_array_equal(batch.inputs, rebuilt.inputs)
    np.testing.assert_array_equal(batch.targets, rebuilt.targets)
    others = [
        TASK.batch("train", 5, 3),
        TASK.batch("validation", 5, 2),
        task_from_dict(TASK.describe(), seed=3).batch("train", 5, 2),
    ]
    assert all((other.inputs != batch.inputs).any() for other in others)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"numbers": 2}, "numbers is 2, allowed 3 to 5"),
        ({"numbers": 6}, "numbers is 6, allowed 3 to 5: six numbers have 2.8 million"),
        ({"largest": 4}, "largest is 4, allowed 5 to 250"),
        ({"largest": 251}, "largest is 251, allowed 5 to 250"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CountdownTask(**sizes)
