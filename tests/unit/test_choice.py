"""Which arm at how many loops: probabilities, the walk up the loop counts, the choice without each block."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from loopedge.study.judging.choice import (
    DRAWS,
    decide,
    honest_quality,
    plainest,
    pooled_deviation,
    walk,
)
from loopedge.study.judging.statements import Candidate

Table = dict[tuple[str, int], dict[str, float]]


def table(values: dict[tuple[str, int], list[float]]) -> Table:
    return {key: {f"s{n}": value for n, value in enumerate(of)} for key, of in values.items()}


def test_of_two_candidates_the_probability_is_that_of_students_t() -> None:
    few, many = [3.1, 3.0, 3.5, 2.9], [2.8, 3.0, 3.1, 2.7]
    margin = 0.1
    choice = decide(
        table({("looped", 1): few, ("looped", 4): many}), margin=margin, higher_is_better=False
    )
    differences = np.subtract(few, many)
    # one loop is within the margin where its mean less that of four loops is at most the margin
    error = differences.std(ddof=1) / math.sqrt(len(few))
    expected = student.cdf((margin - differences.mean()) / error, len(few) - 1)
    assert choice.counts[1] == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(DRAWS))
    assert choice.degrees == 3
    assert choice.deviation == pytest.approx(differences.std(ddof=1) / math.sqrt(2))
    assert choice.best == Candidate(arm="looped", loops=4)


def test_the_deviation_leaves_out_candidates_and_blocks() -> None:
    draw = np.random.default_rng(1)
    noise = draw.normal(size=(3, 4))
    values = noise + draw.normal(0, 50, (3, 1)) + draw.normal(0, 50, (1, 4))
    rest = noise - noise.mean(axis=0) - noise.mean(axis=1, keepdims=True) + noise.mean()
    deviation, degrees = pooled_deviation(values)
    assert deviation == pytest.approx(math.sqrt((rest**2).sum() / 6))
    assert degrees == 6
    alone, degrees = pooled_deviation(values[:1])
    assert alone == pytest.approx(values[0].std(ddof=1))
    assert degrees == 3


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ({1: 0.9, 4: 1.0}, (1, True)),
        ({1: 0.1, 4: 0.85, 8: 1.0}, (4, True)),
        ({1: 0.2, 4: 0.5, 8: 1.0}, (4, False)),
        ({1: 0.5, 4: 1.0}, (1, False)),
        ({1: 0.0, 4: 0.0, 8: 1.0}, (8, True)),
        ({8: 0.7}, (8, False)),
    ],
)
def test_the_walk_stops_where_a_count_is_sure_or_open(
    shares: dict[int, float], found: tuple[int, bool]
) -> None:
    assert walk(shares) == found


def test_the_plainest_arm_that_is_sure_is_taken_or_the_most_probable() -> None:
    keys = [("looped", 4), ("constant", 4), ("timestep", 4), ("looped", 8)]
    assert plainest(keys, np.array([0.5, 0.8, 0.95, 1.0]), 4) == ("constant", 4)
    assert plainest(keys, np.array([0.5, 0.7, 0.6, 1.0]), 4) == ("constant", 4)
    assert plainest(keys, np.array([0.9, 0.8, 0.95, 1.0]), 4) == ("looped", 4)


def test_values_without_noise_decide_at_once() -> None:
    choice = decide(
        table({("looped", 1): [2.0] * 3, ("looped", 4): [1.0] * 3, ("looped", 8): [0.95] * 3}),
        margin=0.1,
        higher_is_better=False,
    )
    assert (choice.outcome, choice.chosen) == ("accept", Candidate(arm="looped", loops=4))
    assert choice.counts == {1: 0.0, 4: 1.0, 8: 1.0}
    assert choice.deviation == pytest.approx(0, abs=1e-12)


def test_a_candidate_that_lacks_a_block_has_no_part() -> None:
    values = table({("looped", 1): [2.0, 2.1, 1.9], ("looped", 4): [1.0, 1.1, 0.9]})
    del values["looped", 4]["s1"]
    choice = decide(values, margin=0.1, higher_is_better=False)
    assert choice.chosen == Candidate(arm="looped", loops=1)
    assert list(choice.candidates) == ["looped-r1"]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_below_three_blocks_nothing_is_chosen(blocks: int) -> None:
    values = table({("looped", 1): [2.0, 2.1][:blocks], ("looped", 4): [1.0, 1.1][:blocks]})
    choice = decide(values, margin=0.1, higher_is_better=False)
    assert (choice.outcome, choice.chosen) == ("undecided", None)
    assert choice.best == (Candidate(arm="looped", loops=4) if blocks else None)


def test_the_same_values_give_the_same_choice_and_their_mirror_too() -> None:
    draw = np.random.default_rng(2)
    values = {
        (arm, loops): draw.normal(3, 1, 4).tolist()
        for arm in ("looped", "timestep")
        for loops in (1, 4)
    }
    one = decide(table(values), margin=0.3, higher_is_better=False)
    assert one == decide(table(dict(reversed(values.items()))), margin=0.3, higher_is_better=False)
    mirrored = {key: [-value for value in of] for key, of in values.items()}
    assert decide(table(mirrored), margin=0.3, higher_is_better=True).counts == one.counts


def test_the_honest_quality_judges_each_block_by_a_choice_of_the_others() -> None:
    validation = table({("looped", 1): [1.0, 1.0, 9.0], ("looped", 4): [5.0, 5.0, 5.0]})
    test = table({("looped", 1): [10.0, 20.0, 30.0], ("looped", 4): [1.0, 2.0, 3.0]})
    # without s0 or s1 the means of one loop are 5 and its noise is large; without s2 it is surely better
    found = honest_quality(validation, test, margin=0.5, higher_is_better=False)
    chosen = []
    for left in ("s0", "s1", "s2"):
        rest: Any = {
            key: {block: value for block, value in of.items() if block != left}
            for key, of in validation.items()
        }
        choice = decide(rest, margin=0.5, higher_is_better=False, least_blocks=2)
        taken = choice.chosen or choice.best
        assert taken is not None
        chosen.append(test[taken.arm, taken.loops][left])
    assert found == pytest.approx(sum(chosen) / 3)
    nothing = {key: dict.fromkeys(of, 0.0) for key, of in test.items()}
    assert honest_quality(validation, nothing, margin=0.5, higher_is_better=False) == 0.0
    assert honest_quality({}, {}, margin=1, higher_is_better=True) is None
    two = {key: {b: v for b, v in of.items() if b != "s0"} for key, of in validation.items()}
    assert honest_quality(two, test, margin=1, higher_is_better=False) is None
