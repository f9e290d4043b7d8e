"""The leaderboard, and what a loop is worth in blocks."""

import math
from typing import Any

import numpy as np
import pytest

from loopedge.baselines.scores import BaselineScores
from loopedge.study.judging.equivalence import recurrence_equivalence
from loopedge.study.judging.leaderboard import leaderboard
from loopedge.study.judging.statistics import over_seeds
from loopedge.study.judging.summary import Summary, Values


def plain(name: str, validation: float | None, test: float | None, **more: Any) -> BaselineScores:
    if validation is None or test is None:
        return BaselineScores(name=name, reason="too few rows", **more)
    return BaselineScores(
        name=name,
        about=f"about {name}",
        validation={"rmse": validation, "mase": None},
        test={"rmse": test, "mase": test / 2},
        **more,
    )


def row(
    arm: str,
    loops: int,
    validation: list[float],
    test: list[float],
    *,
    diverged: int = 0,
    mase: float | None = None,
) -> Summary:
    blocks = [f"s{seed}" for seed in range(len(test))]
    fields: dict[str, Any] = dict.fromkeys(Summary.__dataclass_fields__)
    fields |= {
        "arm": arm,
        "loops": loops,
        "runs": len(test) + diverged,
        "diverged": diverged,
        "failed": 0,
        "int8_failed": 0,
        "test": dict(zip(blocks, test, strict=True)),
        "validation": dict(zip(blocks, validation, strict=True)),
        "quality": over_seeds(test),
        "scores": {} if mase is None else {"mase": over_seeds([mase])},
        "cost": {},
    }
    return Summary(**fields)


ROWS = [
    row("looped", 1, [4.0, 4.2], [3.9, 4.1], mase=0.8),
    row("looped", 4, [3.0, 3.2], [9.0, 9.2], diverged=1),
    row("timestep", 4, [], [], diverged=3),
    row("untied", 4, [3.5, 3.7], [3.4, 3.6]),
]
BASELINES = {
    "s0": [plain("ridge", 3.3, 5.0), plain("last", 5.0, 1.0), plain("boosting", None, None)],
    "s1": [plain("ridge", 3.3, 5.2), plain("last", 5.0, 1.0), plain("boosting", None, None)],
}


def test_rows_are_sorted_by_the_validation_split_and_failures_stay_at_the_end() -> None:
    found = leaderboard(ROWS, BASELINES, "rmse", False)
    assert [place.name for place in found] == [
        "looped with 4 loops",
        "ridge",
        "untied, 4 blocks of their own",
        "looped with 1 loop",
        "last",
        "timestep with 4 loops",
        "boosting",
    ]
    assert [place.kind for place in found] == [
        "looped", "plain", "unlooped", "looped", "plain", "looped", "plain",
    ]  # fmt: skip
    first, ridge, *_ = found
    assert first.validation == pytest.approx(3.1)
    assert first.test == pytest.approx(9.1)
    assert (first.runs, first.finished, first.reason) == (3, 2, "1 of 3 diverged")
    assert ridge.deviation == pytest.approx(math.sqrt(0.02))
    assert ridge.mase == pytest.approx(2.55)
    assert ridge.about == "about ridge"
    assert found[3].mase == 0.8
    assert found[5].reason == "3 of 3 diverged"
    assert found[6].reason == "too few rows"
    assert (found[6].validation, found[6].test) == (None, None)


def test_a_higher_metric_comes_first_where_it_is_better() -> None:
    found = leaderboard(ROWS[:1], BASELINES, "rmse", True)
    assert [place.name for place in found] == ["last", "looped with 1 loop", "ridge", "boosting"]


def test_an_upper_bound_is_marked_and_a_block_without_a_score_is_counted() -> None:
    blocks = {
        "s0": [plain("best there is", 0.1, 0.1, upper_bound=True), plain("ridge", 3.0, 3.0)],
        "s1": [plain("best there is", 0.1, 0.1, upper_bound=True), plain("ridge", None, None)],
    }
    bound, ridge = leaderboard([], blocks, "rmse", False)
    assert bound.upper_bound
    assert (ridge.runs, ridge.finished, ridge.validation) == (2, 1, 3.0)
    assert ridge.reason == "too few rows"
    assert ridge.about == "about ridge; chosen anew in each block"


def values(numbers: Any) -> Values:
    return {f"s{seed}": float(number) for seed, number in enumerate(numbers)}


@pytest.mark.parametrize("exponent", [0.0, 0.46, 1.0, -0.3])
@pytest.mark.parametrize("higher", [False, True])
def test_a_loss_that_is_linear_in_the_logarithm_of_the_depth_gives_its_exponent_back(
    exponent: float, higher: bool
) -> None:
    sign = -1 if higher else 1

    def loss(depth: float) -> float:
        return sign * (4 - 0.5 * math.log(depth))

    own = np.array([0.3, -0.1, 0.2])  # luck that all arms of a seed share
    found = recurrence_equivalence(
        values(own + loss(1)),
        values(own + loss(8**exponent)),
        values(own + loss(8)),
        metric="rmse",
        higher_is_better=higher,
    )
    assert found.exponent == pytest.approx(exponent)
    assert found.low == pytest.approx(exponent, abs=1e-6)
    assert found.high == pytest.approx(exponent, abs=1e-6)
    assert found.reason is None


def test_the_loss_of_a_perplexity_is_its_logarithm() -> None:
    arms = [
        values(math.exp(loss) for loss in losses) for losses in ([3.0] * 3, [2.5] * 3, [2.0] * 3)
    ]
    found = recurrence_equivalence(*arms, metric="perplexity", higher_is_better=False)
    assert found.exponent == pytest.approx(0.5)


def test_what_cannot_be_identified_says_why() -> None:
    one, tied = values([4.0, 4.1, 3.9]), values([3.8, 3.9, 3.7])
    for untied, reason in (
        (None, "no-untied-arm"),
        ({}, "no-untied-arm"),
        (values([3.0, 3.0]), "too-few-runs"),
        (values([3.0, 5.2, 3.5]), "untied-gain-within-noise"),
        (values([5.0, 5.1, 4.9]), "untied-gain-within-noise"),  # surely worse: there is no gain
    ):
        found = recurrence_equivalence(one, tied, untied, metric="rmse", higher_is_better=False)
        assert (found.exponent, found.low, found.high) == (None, None, None)
        assert found.reason == reason


@pytest.mark.parametrize("blocks", [3, 5, 12])
def test_the_interval_holds_the_exponent_as_often_as_it_says(blocks: int) -> None:
    drawn = np.random.default_rng(blocks)
    held = identified = 0
    for _ in range(4000):
        gains = drawn.normal([0.5, 1.0], 0.08, (blocks, 2))
        shared = drawn.normal(size=blocks)
        found = recurrence_equivalence(
            values(shared),
            values(shared - gains[:, 0]),
            values(shared - gains[:, 1]),
            metric="rmse",
            higher_is_better=False,
        )
        if found.low is None or found.high is None:
            continue
        identified += 1
        held += found.low <= 0.5 <= found.high
    assert identified > 3900
    # the standard error of 4,000 draws at 95 % is a third of a percent
    assert 0.935 < held / identified < 0.965
