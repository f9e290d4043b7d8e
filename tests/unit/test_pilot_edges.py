"""Pilots at the edges: a metric of 0, arms in another order, a seed half made, a budget that is used up."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loopedge.baselines.scores import BaselineScores
from loopedge.baselines.series.all import FITS
from loopedge.errors import InputError
from loopedge.report.pilot.facts import next_text, runs_text
from loopedge.report.pilot.how import decided_section
from loopedge.report.pilot.wording import Wording
from loopedge.study.going_on import plan_of
from loopedge.study.judged_again import judged_again, with_requirements
from loopedge.study.judging.choice import honest_quality
from loopedge.study.judging.claims import Claims
from loopedge.study.judging.judgement import judge_runs
from loopedge.study.judging.period import Windows
from loopedge.study.judging.requirements import Limits
from loopedge.study.judging.statements import NextStep, Requirements
from loopedge.study.options import PilotOptions
from loopedge.study.words import english, japanese
from loopedge.study.words.figures import Names
from loopedge.tasks.metrics import Metrics, Tally
from tests.unit.pilot_results import make_no, make_undecided
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


@pytest.mark.parametrize("budget", ["--budget 20m", "--budget=20m", ""])
def test_more_seeds_come_with_the_time_that_they_take(
    budget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.study.going_on.by_face", lambda shell, python: shell)
    plan = plan_of(
        f"loopedge pilot sorting --seeds auto {budget} -o p",
        can_roll=False,
        origins=None,
        seed_seconds=100.0,
        is_unfinished=False,
        seeds=3,
        spent=1200.0,
    )
    assert plan.more_seeds is not None
    # 20 minutes are used up; two seeds take 200 s, and a quarter more: 1450 s
    more = " --budget 25m" if budget else ""
    assert plan.more_seeds(5) == f"loopedge pilot sorting -o p --seeds 5{more} --resume"


@pytest.mark.parametrize(
    "name",
    [
        *FITS, "most frequent class", "discriminant analysis on summaries", "logistic regression on summaries",
        "boosting on summaries", "token frequency", "n-grams", "usual token of each position", "n-grams of targets",
        "copy of the source",
    ],
)  # fmt: skip
def test_every_fitted_baseline_has_a_japanese_name(name: str) -> None:
    assert name in japanese.BASELINES


def test_without_a_measured_model_nothing_is_said_to_miss_what_was_required() -> None:
    one = Requirements(meets=None, nearest=None, model=None, missed={})
    assert "measured" in english.sentence(one, Names(metric="rmse"))


def test_one_seed_and_one_run_are_counted_as_one() -> None:
    found, words = make_undecided(), Wording("en")
    step = NextStep(what="more-seeds", seeds=1)
    one = replace(found, verdict=replace(found.verdict, statements=[step]))
    assert next_text(one, words) == ["1 more seed"]
    lost = {
        "reason": "no-time",
        "arm": None,
        "loops": None,
        "runs": 1,
        "share": 0.0,
        "validation": None,
    }
    page = "".join(decided_section(replace(found, left_out=[lost]), words))
    assert "1 run of the last seed:" in page


def test_the_page_counts_the_seeds_that_were_judged() -> None:
    """Of five seeds that were asked for, the budget left three."""
    found = make_undecided()
    verdict = replace(found.verdict, choice=replace(found.verdict.choice, blocks=3))
    planned = replace(found, verdict=verdict, design=found.design | {"seeds": 5, "origins": None})
    assert runs_text(planned, Wording("en")) == "3 seeds"
    rolled = replace(planned, design=planned.design | {"origins": 3})
    assert runs_text(rolled, Wording("en")) == Wording("en")(
        "seeds_origins", seeds="1 seed", origins=3
    )


def test_a_share_of_another_margin_is_of_the_best_model_where_there_is_no_baseline() -> None:
    """Whatever the first margin was: of a plain number the share came to 0."""
    found = make_undecided()
    rows = [row for row in found.summary if row.is_whole]
    best = min(float(np.mean(list(row.validation.values()))) for row in rows)
    plain = replace(found.verdict.margin, value=0.05, text="0.05", of="")
    alone = replace(found, baselines={}, verdict=replace(found.verdict, margin=plain))
    again = judged_again(alone, "2%")
    assert again.margin["value"] == pytest.approx(0.02 * best)
    assert again.margin["of"] == "the error of the best model"


def test_a_least_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="min_metric is nan, a finite number is needed"):
        PilotOptions(min_metric=float("nan"))


def test_other_limits_are_said_in_the_sentences_too() -> None:
    found = make_undecided()
    held = with_requirements(found, Limits(memory_bytes=1 << 40))
    known = held.verdict.statement("requirements")
    assert isinstance(known, Requirements)
    assert known.meets is not None
    said = [english.sentence(one, held.verdict.names) for one in held.verdict.statements[1:]]
    assert held.verdict.sentences == [text for text in said if text]
    assert held.verdict.sentences != found.verdict.sentences


def test_another_margin_comes_with_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loopedge.study.going_on.by_face", lambda shell, python: shell)
    found = make_no()
    cells = [cell | {"train_seconds": 60.0} for cell in found.cells]
    command = "loopedge pilot series a.csv --margin 1% --jobs 2 --force"
    asked = replace(found, cells=cells, command=command)
    step = judged_again(asked, "0.2").verdict.statement("next-step")
    assert isinstance(step, NextStep)
    assert step.what == "more-seeds"
    more = "loopedge pilot series a.csv --jobs 2 --margin 0.2 --seeds 5 --resume"
    assert step.command == more
    models = {(cell["arm"], cell["loops"]) for cell in cells}
    assert step.seconds == 2 * len(models) * 60.0 / 2  # two seeds more, two runs at the same time
    by_hand = replace(asked, command="loopedge my_script.py")  # made by a program: no command
    alone = judged_again(by_hand, "0.2").verdict.statement("next-step")
    assert isinstance(alone, NextStep)
    assert (alone.what, alone.command) == ("more-seeds", None)
