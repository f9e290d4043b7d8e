"""Every candidate against the strongest baseline: over seeds, over the test split, all at once."""

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import dunnett
from scipy.stats import t as student

from loopedge.baselines.scores import BaselineScores
from loopedge.study.judging.claims import (
    Claims,
    claim,
    evidence_of,
    seed_covariance,
    simultaneous,
    strongest,
)
from loopedge.study.judging.period import Windows, influences, period_luck
from loopedge.study.judging.statements import Candidate
from loopedge.tasks.metrics import class_metrics

Table = dict[tuple[str, int], dict[str, float]]
LOOPED = Candidate(arm="looped", loops=1)


def drawn(candidates: int, seeds: int, *, deviation: float = 1.0, number: int = 0) -> Table:
    draw = np.random.default_rng(number)
    return {
        ("looped", count + 1): {f"s{s}": float(draw.normal(5, deviation)) for s in range(seeds)}
        for count in range(candidates)
    }


def zeros(values: Table) -> dict[str, float]:
    return dict.fromkeys((block for of in values.values() for block in of), 0.0)


def test_of_one_candidate_the_interval_is_that_of_students_t() -> None:
    values = drawn(1, 6)
    found = claim(values, zeros(values))
    assert found is not None
    of = list(values["looped", 1].values())
    low, high = student.interval(0.95, 5, np.mean(of), np.std(of, ddof=1) / math.sqrt(6))
    interval = found.of(LOOPED)
    assert interval is not None
    assert interval.low == pytest.approx(low)
    assert interval.high == pytest.approx(high)
    assert (found.over, found.period_deviation, found.visible) == ("seeds", None, None)


def test_a_baseline_that_differs_by_seed_is_paired() -> None:
    values = {("looped", 1): {"s0": 1.0, "s1": 5.0, "s2": 9.0}}
    found = claim(values, {"s0": 1.5, "s1": 5.5, "s2": 9.5})
    assert found is not None
    interval = found.of(LOOPED)
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == pytest.approx((-0.5, -0.5, -0.5))


@pytest.mark.parametrize(("candidates", "degrees"), [(2, 8), (5, 20), (9, 18)])
def test_many_independent_candidates_widen_it_as_the_largest_of_many_t(
    candidates: int, degrees: int
) -> None:
    found = simultaneous(np.eye(candidates), degrees)
    draw = np.random.default_rng(5)
    largest = np.abs(draw.normal(size=(200_000, candidates))).max(axis=1)
    largest /= np.sqrt(draw.chisquare(degrees, 200_000) / degrees)
    assert found == pytest.approx(np.quantile(largest, 0.95), rel=0.02)
    # what all share widens nothing
    same = simultaneous(np.ones((candidates, candidates)), degrees)
    assert same == pytest.approx(student.ppf(0.975, degrees), rel=0.02)


def test_against_a_drawn_control_it_is_dunnetts_test() -> None:
    """A baseline with a luck of its own, as large as that of each candidate, is Dunnett's control."""
    draw = np.random.default_rng(6)
    groups = draw.normal(5, 1, (4, 8))
    result = dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
    pooled = math.sqrt(float(np.mean([of.var(ddof=1) for of in groups])))
    interval = result.confidence_interval(0.95)
    theirs = (interval.high - interval.low) / 2 / (pooled * math.sqrt(2 / 8))
    covariance = pooled**2 / 8 * (np.eye(3) + 1)
    assert simultaneous(covariance, 4 * 7) == pytest.approx(float(theirs.mean()), rel=0.02)


def test_what_candidates_share_by_seed_stays_in_the_claim() -> None:
    draw = np.random.default_rng(7)
    differences = draw.normal(0, 3, (1, 400)) + draw.normal(0, 1, (5, 400))
    covariance, degrees, alone = seed_covariance(differences, [""] * 400)
    assert not alone
    np.testing.assert_allclose(np.diag(covariance) * 400, 10, rtol=0.2)
    assert covariance[0, 1] / covariance[0, 0] == pytest.approx(0.9, abs=0.05)
    assert 399 <= degrees < 2.0 * 399
    covariance, degrees, _ = seed_covariance(draw.normal(size=(5, 400)), [""] * 400)
    assert abs(covariance[0, 1] / covariance[0, 0]) < 0.05
    assert degrees == pytest.approx(5 * 399, rel=0.05)


def test_origins_are_taken_out_of_the_luck_of_seeds() -> None:
    draw = np.random.default_rng(8)
    level = np.repeat([0.0, 10.0, -10.0], 50)
    covariance, degrees, alone = seed_covariance(
        level + draw.normal(size=(2, 150)), [f"o{n}" for n in range(3) for _ in range(50)]
    )
    assert not alone
    np.testing.assert_allclose(np.diag(covariance) * 150, 1, rtol=0.3)
    # of one seed at each origin the variance is that between the origins
    covariance, degrees, alone = seed_covariance(np.array([[0.0, 10.0, -10.0]]), ["o0", "o1", "o2"])
    assert (alone, degrees, covariance[0, 0]) == (True, 2, pytest.approx(100 / 3))


@pytest.mark.parametrize(("samples", "has_bounds"), [(3, False), (4, True)])
def test_of_few_samples_a_test_split_shows_no_luck(samples: int, has_bounds: bool) -> None:
    """One sample differs from nothing: the interval would be that of the seeds alone."""
    values = drawn(2, 4)
    changes = np.random.default_rng(9).normal(0, 0.02, (2, samples))
    of = {"": Windows.independent(samples)}
    found = claim(values, zeros(values), evidence={"": changes}, windows=of)
    assert found is not None
    assert all((one.low is not None) == has_bounds for one in found.differences.values())
    shares = claim(values, zeros(values), evidence={"": changes}, windows=of, bounded=True)
    assert shares is not None
    assert all(one.low is not None for one in shares.differences.values())


def test_seeds_and_test_split_add_up() -> None:
    values = drawn(2, 4)
    draw = np.random.default_rng(9)
    changes = draw.normal(0, 0.02, (2, 200))
    windows = Windows.independent(200)
    seeds = claim(values, zeros(values))
    both = claim(values, zeros(values), evidence={"": changes}, windows={"": windows})
    assert seeds is not None
    assert both is not None
    luck = period_luck(changes, windows)
    np.testing.assert_allclose(
        both.covariance, np.array(seeds.covariance) + luck.covariance, rtol=1e-9
    )
    assert (both.over, both.samples, both.block_length) == ("seeds and samples", 200, 1)
    assert both.period_deviation is not None
    assert both.period_deviation == pytest.approx(math.sqrt(np.diag(luck.covariance).mean()))
    assert both.visible is not None
    assert both.visible == pytest.approx(
        both.period_deviation * (student.ppf(0.975, 199) + student.ppf(0.8, 199))
    )
    assert both.seed_deviation is not None
    assert both.is_of_period == (both.period_deviation > both.seed_deviation)


def test_origins_that_disagree_widen_the_claim() -> None:
    draw = np.random.default_rng(10)
    shift = {"o0": -3.0, "o1": 0.0, "o2": 4.0}
    names = [(s, o) for s in range(3) for o in shift]
    values = {("looped", 4): {f"s{s}-{o}": shift[o] + draw.normal(0, 0.1) for s, o in names}}
    evidence = {o: draw.normal(0, 0.01, (1, 100)) for o in shift}
    windows = dict.fromkeys(shift, Windows.independent(100))
    found = claim(values, zeros(values), evidence=evidence, windows=windows)
    assert found is not None
    assert found.over == "seeds, windows and origins"
    assert found.degrees == pytest.approx(2, rel=0.1)
    spread = np.std(list(shift.values()), ddof=1) / math.sqrt(3)
    assert math.sqrt(found.covariance[0][0]) == pytest.approx(spread, rel=0.1)
    same = {
        key: {block: value - shift[block[3:]] for block, value in of.items()}
        for key, of in values.items()
    }
    calm = claim(same, zeros(values), evidence=evidence, windows=windows)
    assert calm is not None
    assert math.sqrt(calm.covariance[0][0]) < 0.1


def test_below_three_blocks_there_is_no_interval() -> None:
    values = drawn(2, 2)
    found = claim(values, zeros(values))
    assert found is not None
    assert all(of.low is None and not of.excludes_zero for of in found.differences.values())
    assert claim({}, {}) is None
    assert claim(values, {"s9": 1.0}) is None


def test_two_candidates_are_compared_as_surely_as_all() -> None:
    values = drawn(3, 5)
    found = claim(values, zeros(values))
    assert found is not None
    one, two = Candidate(arm="looped", loops=1), Candidate(arm="looped", loops=2)
    interval = found.between(one, two)
    assert interval is not None
    assert interval.low is not None
    means = [np.mean(list(values["looped", n].values())) for n in (1, 2)]
    assert interval.mean == pytest.approx(means[0] - means[1])
    c = found.covariance
    error = math.sqrt(c[0][0] + c[1][1] - 2 * c[0][1])
    assert interval.mean - interval.low == pytest.approx((found.quantile or 0) * error)
    assert found.between(one, Candidate(arm="untied", loops=2)) is None


def test_claims_are_read_back_as_they_were_written() -> None:
    values = drawn(3, 4)
    found = claim(
        values,
        zeros(values),
        evidence={"": np.random.default_rng(0).normal(size=(3, 50)) / 50},
        windows={"": Windows.independent(50)},
    )
    assert found is not None
    assert Claims.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_evidence_is_the_mean_over_seeds_less_the_baseline() -> None:
    draw = np.random.default_rng(11)

    def tally() -> dict[str, Any]:
        return {"right": (draw.random(30) < 0.7).astype(float), "asked": np.ones(30)}

    tallies = {f"looped-r1-s{s}": {"test": tally()} for s in range(3)}
    plain = {f"s{s}": {"test": tallies["looped-r1-s0"]["test"]} for s in range(3)}
    names = {("looped", 1): {f"s{s}": f"looped-r1-s{s}" for s in range(3)}}
    found = evidence_of(names, tallies, plain, metrics=class_metrics, metric="accuracy")
    assert found is not None
    each = [influences(of["test"], class_metrics, "accuracy") for of in tallies.values()]
    np.testing.assert_allclose(found[""][0], np.mean(each, axis=0) - each[0], atol=1e-12)
    del tallies["looped-r1-s1"]
    assert evidence_of(names, tallies, plain, metrics=class_metrics, metric="accuracy") is None


def test_the_strongest_baseline_is_the_best_where_models_are_judged() -> None:
    def of(name: str, value: float | None, **fields: Any) -> BaselineScores:
        return BaselineScores(name=name, test={"rmse": value}, **fields)

    scores = {
        "s0": [of("a", 1.0), of("b", 3.0), of("none", None), of("best", 0.1, upper_bound=True)],
        "s1": [of("a", 4.0), of("b", 1.0), of("none", 2.0), of("best", 0.1, upper_bound=True)],
    }
    found = strongest(scores, "rmse", higher_is_better=False)
    assert found is not None
    assert (found.name, found.value, found.values) == ("b", 2.0, {"s0": 3.0, "s1": 1.0})
    top = strongest(scores, "rmse", higher_is_better=True)
    assert top is not None
    assert top.name == "a"
    assert strongest({"s0": []}, "rmse", higher_is_better=True) is None
