"""Pilots at the edges: a metric of 0, arms in another order, a seed half made, a budget that is used up."""

from typing import Any

import numpy as np
import pytest

from loopedge.baselines.scores import BaselineScores
from loopedge.study.judging.choice import honest_quality
from loopedge.study.judging.claims import Claims
from loopedge.study.judging.judgement import judge_runs
from loopedge.study.judging.period import Windows
from loopedge.tasks.metrics import Metrics, Tally
from tests.unit.pilot_runs import judged, runs_of

SAMPLES = 40


def test_a_metric_of_zero_counts_in_the_honest_quality() -> None:
    values = {("looped", 1): {"s0": 0.0, "s1": 0.0, "s2": 0.3}}
    found = honest_quality(values, values, margin=0.1, higher_is_better=False)
    assert found == pytest.approx(0.1)  # (0 + 0 + 0.3) / 3


def errors(size: float, number: int) -> dict[str, Any]:
    """Return what each sample adds to a mean error: of several sizes of luck."""
    drawn = np.random.default_rng(number).normal(3, size, SAMPLES)
    return {"error": drawn, "count": np.ones(SAMPLES)}


def metrics(tally: Tally) -> Metrics:
    return {"rmse": float(tally["error"] / tally["count"])}


def claims_of(arms: tuple[str, ...]) -> Claims:
    """Return the claims of two arms, one of which has much more luck in the test split."""
    spread = {"looped": 0.1, "timestep": 2.0}
    tallies = {
        f"{arm}-r1-s{seed}": {"test": errors(spread[arm], seed)}
        for arm in arms
        for seed in range(3)
    }
    plain = {"test": {"error": np.full(SAMPLES, 9.0), "count": np.ones(SAMPLES)}}
    values = {
        (arm, 1): [metrics({k: v.sum() for k, v in tallies[f"{arm}-r1-s{s}"]["test"].items()})["rmse"] for s in range(3)]
        for arm in arms
    }  # fmt: skip
    baselines = {
        f"s{seed}": [BaselineScores(name="naive", test={"rmse": 9.0}, tallies=plain)]  # type: ignore[arg-type]
        for seed in range(3)
    }
    runs = runs_of(
        values,
        baseline=None,
        tallies=tallies,
        metrics=metrics,
        windows={"": Windows.independent(SAMPLES)},
    )
    fields = {name: getattr(runs, name) for name in runs.__slots__} | {"baselines": baselines}
    found = judge_runs(type(runs)(**fields), margin=0.2).claims
    assert found is not None
    assert found.over == "seeds and samples"
    return found


def test_the_luck_of_a_model_stays_its_own_whatever_the_order_of_the_arms() -> None:
    one, other = claims_of(("looped", "timestep")), claims_of(("timestep", "looped"))
    for name in ("looped-r1", "timestep-r1"):
        mine, theirs = one.differences[name], other.differences[name]
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
    widths = {
        name: of.high - of.low for name, of in other.differences.items() if of.high and of.low
    }
    assert widths["timestep-r1"] > 5 * widths["looped-r1"]


def test_a_seed_that_only_some_models_have_leaves_none_of_them_out() -> None:
    """Stopped within the fourth seed: eight loops are far better, and lack it."""
    values = {
        ("looped", 1): [5.0, 5.1, 4.9, 5.0],
        ("looped", 4): [4.0, 4.1, 3.9, 4.0],
        ("looped", 8): [2.0, 2.1, 1.9],
    }
    found = judged(values)
    assert found.verdict.choice.blocks == 3
    assert found.verdict.recommended == {"arm": "looped", "loops": 8}
    assert found.claims is not None
    assert set(found.claims.differences) == {"looped-r1", "looped-r4", "looped-r8"}
