"""The longest-common-subsequence task: its lengths against naive ones, its samples and score."""

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.errors import InputError
from loopedge.tasks.generated.lcs import BAR, FIRST_LETTER, SEPARATOR, LcsTask, lcs_lengths
from loopedge.tasks.metrics import IGNORED, metric_value
from loopedge.tasks.task import task_from_dict

STRING = st.lists(st.integers(0, 2), min_size=5, max_size=5)
TASK = LcsTask(length=8, letters=3)


def longest(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        if first[i - 1] == second[j - 1]:
            return 1 + length(i - 1, j - 1)
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(first), len(second))


@given(pairs=st.lists(st.tuples(STRING, STRING), min_size=1, max_size=4))
def test_the_length_is_that_of_the_longest_subsequence_both_have(
    pairs: list[tuple[list[int], list[int]]],
) -> None:
    found = lcs_lengths(*(np.array(strings) for strings in zip(*pairs, strict=True)))
    for (first, second), lengths in zip(pairs, found, strict=True):
        for j, length in enumerate(lengths):
            common = [
                n
                for n in range(j + 1)
                if set(combinations(first, n)) & set(combinations(second[:j], n))
            ]
            assert length == max(common)


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_sample_is_two_strings_and_its_class_the_length(prefixes: bool) -> None:
    task = LcsTask(length=8, letters=3, prefixes=prefixes)
    batch = task.batch("train", 64, 0)
    assert batch.inputs.shape == (64, 18)
    assert (batch.inputs[:, 8] == BAR).all()
    assert (batch.inputs[:, -1] == SEPARATOR).all()
    strings = batch.inputs - FIRST_LETTER
    assert set(np.unique(strings[:, :8])) == {0, 1, 2}
    for row, target in zip(strings, batch.targets, strict=True):
        first, second = tuple(row[:8]), tuple(row[9:17])
        whole = longest(first, second)
        if prefixes:
            parts = [longest(first, second[: j + 1]) for j in range(8)]
            assert target.tolist() == [*[IGNORED] * 9, *parts, whole]
        else:
            assert target == whole


def test_batches_are_those_of_seed_split_and_step() -> None:
    batch = TASK.batch("validation", 5, 2)
    rebuilt = task_from_dict(TASK.describe()).batch("validation", 5, 2)
    np.testing.assert_array_equal(batch.inputs, rebuilt.inputs)
    np.testing.assert_array_equal(batch.targets, rebuilt.targets)
    others = [
        TASK.batch("validation", 5, 3),
        TASK.batch("test", 5, 2),
        LcsTask(length=8, letters=3, seed=1).batch("validation", 5, 2),
    ]
    assert all((other.inputs != batch.inputs).any() for other in others)


@pytest.mark.parametrize("prefixes", [False, True])
def test_the_score_is_of_whole_strings_and_the_commonest_length_a_baseline(prefixes: bool) -> None:
    task = LcsTask(length=8, letters=3, prefixes=prefixes)
    batch = task.batch("test", 50, 0)
    logits = np.eye(task.classes)[batch.targets.clip(0)]
    whole = {"accuracy": 1.0, "mean_abs_error": 0.0}
    assert task.score(logits, batch.targets) == whole | (
        {"prefix_accuracy": 1.0} if prefixes else {}
    )
    common = task.baselines("test", 400)["most_frequent"]
    lengths = np.bincount(TASK.batch("test", 400, 0).targets)
    assert common["accuracy"] == pytest.approx(lengths.max() / 400, abs=0.05)
    assert 0 < metric_value(common, "mean_abs_error") < 2


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"length": 1}, "length is 1, allowed 2 to 1000"),
        ({"length": 1001}, "length is 1001, allowed 2 to 1000"),
        ({"length": 8, "letters": 1}, "letters is 1, allowed 2 to 1000"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LcsTask(**sizes)
