"""The edit-distance task: the distance against a naive one, and the generator's stated facts."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.errors import InputError
from loopedge.tasks.generated.edit_distance import (
    BAR,
    FIRST_LETTER,
    PAD,
    SEPARATOR,
    EditDistanceTask,
    draw_pairs,
    edit_distances,
)
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.task import Array, task_from_dict

STRINGS = st.lists(st.integers(0, 3), max_size=7)
TASK = EditDistanceTask(length=12)
PREFIXES = EditDistanceTask(length=6, letters=4, prefixes=True)


def whole(first: Array, second: Array, n1: Array, n2: Array) -> Array:
    """Return the distances of whole strings."""
    distances: Array = edit_distances(first, second, n1)[np.arange(len(n2)), n2]
    return distances


def naive_distance(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 2 * (i + j)
        replaced = distance(i - 1, j - 1) + (0 if first[i - 1] == second[j - 1] else 3)
        return min(distance(i - 1, j) + 2, distance(i, j - 1) + 2, replaced)

    return distance(len(first), len(second))


@given(pairs=st.lists(st.tuples(STRINGS, STRINGS), min_size=1, max_size=6), rest=st.integers(0, 3))
def test_the_distance_is_the_naive_one(pairs: list[tuple[list[int], list[int]]], rest: int) -> None:
    first, second = (np.full((len(pairs), 8), rest) for _ in range(2))
    for row, (one, other) in enumerate(pairs):
        first[row, : len(one)], second[row, : len(other)] = one, other
    lengths = np.array([[len(one), len(other)] for one, other in pairs])
    found = whole(first, second, lengths[:, 0], lengths[:, 1])
    assert found.tolist() == [naive_distance(tuple(one), tuple(other)) for one, other in pairs]


def parse(row: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read ``first | second <sep>`` back from token ids."""
    tokens = row[row != PAD].tolist()
    bar = tokens.index(BAR)
    assert tokens[-1] == SEPARATOR
    return tuple(tokens[:bar]), tuple(tokens[bar + 1 : -1])


def test_a_sample_is_padded_left_and_its_class_is_the_distance() -> None:
    batch = TASK.batch("train", 200, 0)
    assert batch.attention_mask is not None
    assert batch.inputs.shape == (200, TASK.sequence)
    assert (batch.inputs[:, -1] == SEPARATOR).all()
    assert (np.diff(batch.attention_mask, axis=1) >= 0).all()
    np.testing.assert_array_equal(batch.attention_mask == 1, batch.inputs != PAD)
    for row, target in zip(batch.inputs, batch.targets, strict=True):
        first, second = parse(row)
        assert first != second
        assert len(first) <= len(second)
        assert min(map(len, (first, second))) >= 9
        assert max(map(len, (first, second))) <= 14
        assert min(first + second) >= FIRST_LETTER
        assert 1 <= len(set(first + second)) <= 10
        assert target == naive_distance(first, second)
        assert target < TASK.classes


def test_four_pairs_in_ten_are_independent() -> None:
    # Of the drawn pairs; of the kept ones more, for edited strings are rejected more often.
    generator = np.random.default_rng(0)
    first, second, n1, n2 = draw_pairs(generator, 4000, 60)
    per_letter = whole(first, second, n1, n2) / n2
    assert 0.2 < (per_letter > 1.2).mean() < 0.6
    assert (per_letter < 0.5).mean() > 0.15


def test_the_longest_distance_is_a_class() -> None:
    same = np.zeros((1, 14), np.int64)
    other = np.ones((1, 14), np.int64)
    for n1, n2 in [(12, 14), (12, 12), (9, 12)]:
        found = whole(same, other, np.array([n1]), np.array([n2]))
        assert found[0] < TASK.classes
    assert whole(same, other, np.array([12]), np.array([14]))[0] == (TASK.classes - 1)


def test_batches_are_those_of_seed_split_and_step() -> None:
    batch = TASK.batch("train", 5, 2)
    rebuilt = task_from_dict(TASK.describe()).batch("train", 5, 2)
    np.testing.assert_array_equal(batch.inputs, rebuilt.inputs)
    np.testing.assert_array_equal(batch.targets, rebuilt.targets)
    assert (TASK.batch("train", 5, 3).inputs != batch.inputs).any()
    assert (TASK.batch("test", 5, 2).inputs != batch.inputs).any()


def test_the_score_counts_exact_classes() -> None:
    targets = np.array([3, 5])
    logits = np.zeros((2, TASK.classes))
    logits[0, 3] = logits[1, 9] = 1
    assert TASK.score(logits, targets) == {"accuracy": 0.5, "mean_abs_error": 2.0}
    assert 0 < metric_value(TASK.baselines("test", 300)["most_frequent"], "accuracy") < 0.3


@pytest.mark.parametrize("length", [0, 3, 1001])
def test_a_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(InputError, match="allowed 4 to 1000"):
        EditDistanceTask(length=length)


def test_prefixes_ask_for_the_distance_of_what_stands_before() -> None:
    batch = PREFIXES.batch("train", 64, 0)
    for ids, targets in zip(batch.inputs, batch.targets, strict=True):
        first, second = parse(ids)
        asked = targets[targets != IGNORED]
        expected = [naive_distance(first, second[: j + 1]) for j in range(len(second))]
        assert asked.tolist() == [*expected, expected[-1]]
        assert targets[-1] == expected[-1]
        assert max(ids) < 3 + 4


def test_the_whole_strings_decide_where_prefixes_are_asked_too() -> None:
    batch = PREFIXES.batch("train", 8, 0)
    logits = np.eye(PREFIXES.classes)[np.where(batch.targets == IGNORED, 0, batch.targets)]
    assert PREFIXES.score(logits, batch.targets) == {
        "accuracy": 1.0,
        "mean_abs_error": 0.0,
        "prefix_accuracy": 1.0,
    }
    logits[:, -1] = np.eye(PREFIXES.classes)[(batch.targets[:, -1] + 2) % PREFIXES.classes]
    score = PREFIXES.score(logits, batch.targets)
    assert score["accuracy"] == 0
    assert 0.5 < metric_value(score, "prefix_accuracy") < 1
    fields = PREFIXES.model_fields()
    assert (fields["read"], fields["vocab_size"]) == ("all", 7)
    assert set(PREFIXES.baselines("test", 64)["most_frequent"]) == set(score)
    assert task_from_dict(PREFIXES.describe()).describe() == PREFIXES.describe()


@pytest.mark.parametrize("letters", [2, 27])
def test_an_alphabet_out_of_range_is_refused(letters: int) -> None:
    with pytest.raises(InputError, match=f"letters is {letters}, allowed 3 to 26"):
        EditDistanceTask(length=6, letters=letters)
