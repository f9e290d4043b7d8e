"""What would decide an undecided pilot, and what comes after a decided one."""

from typing import Any

import pytest

from loopedge.study.judging.judgement import judge_runs
from loopedge.study.judging.next_step import Plan, block_seconds
from loopedge.study.judging.period import Windows
from loopedge.study.judging.statements import Decision, NextStep
from tests.unit.pilot_runs import Values, cells_of, runs_of

PLAN = Plan(
    seconds=60.0,
    more_seeds=lambda count: f"--seeds {count}",
    more_origins=lambda count: f"--origins {count}",
    wider_margin=lambda margin: f"--margin {margin:g}",
)
OPEN: Values = {("looped", 1): [8.0, 8.3, 7.9], ("looped", 8): [8.1, 7.9, 7.95]}


def step_of(values: Values, *, margin: float = 0.2, plan: Plan = PLAN, **fields: Any) -> NextStep:
    found = judge_runs(runs_of(values, **fields), margin=margin, plan=plan).verdict
    step = found.statements[-1]
    assert isinstance(step, NextStep)
    return step


def test_more_seeds_are_as_many_as_the_choice_would_take() -> None:
    step = step_of(OPEN)
    assert step.what == "more-seeds"
    assert step.seeds is not None
    assert step.seconds == 60.0 * step.seeds
    assert step.command == f"--seeds {3 + step.seeds}"
    assert 3 + step.seeds in (5, 8, 12, 18, 27)


def test_without_a_plan_neither_time_nor_command_is_made_up() -> None:
    step = step_of(OPEN, plan=Plan())
    assert (step.seconds, step.command) == (None, None)


def test_where_no_number_of_seeds_is_near_a_margin_is_named_that_decides() -> None:
    values: Values = {("looped", 1): [8.3, 8.0, 7.7], ("looped", 8): [8.0, 7.8, 7.6]}
    step = step_of(values, margin=0.2)  # the difference is the margin: its probability stays a half
    assert step.what == "wider-margin"
    assert step.margin is not None
    assert step.command == f"--margin {step.margin:g}"
    decided = judge_runs(runs_of(values), margin=step.margin).verdict
    assert decided.choice.outcome == "accept"


def test_two_seeds_lack_one() -> None:
    step = step_of({("looped", 1): [8.0, 8.2], ("looped", 8): [7.7, 7.8]})
    assert (step.what, step.seeds, step.command) == ("more-seeds", 1, "--seeds 3")


@pytest.mark.parametrize(
    ("values", "fields", "what"),
    [
        ({("looped", 1): [9.0, 9.1, 8.9], ("looped", 4): [7.0, 7.1, 6.9]}, {}, "deploy"),
        ({("looped", 1): [19.0, 19.1, 18.9], ("looped", 4): [17.0, 17.1, 16.9]}, {}, "take-baseline"),
        ({("looped", 1): [None] * 3, ("looped", 4): [None] * 3}, {"baseline": None}, "mend-runs"),
        ({("looped", 1): [9.0, 9.1, 8.9]}, {}, "more-loops"),
        ({("looped", 1): [9.0, 9.1, 8.9], ("looped", 4): [7.0, 7.1, 6.9], ("narrow", 4): [1.0, 1.1, 0.9]}, {}, "compare-untied"),
    ],
)  # fmt: skip
def test_what_comes_after_a_decision(values: Values, fields: dict[str, Any], what: str) -> None:
    assert step_of(values, **fields).what == what


@pytest.mark.parametrize(("plan", "what"), [(PLAN, "more-origins"), (Plan(), "longer-data")])
def test_a_test_split_that_is_too_small_needs_more_of_it(plan: Plan, what: str) -> None:
    """Four windows, of which the first decides alone: their luck hides a lead that the seeds are sure of."""

    def tally(*squared: float) -> dict[str, Any]:
        import numpy as np

        return {"test": {"squared": np.array(squared), "asked": np.ones(len(squared))}}

    def metrics(sums: dict[str, Any]) -> dict[str, float | None]:
        return {"rmse": float((sums["squared"] / sums["asked"]) ** 0.5)}

    values: Values = {("looped", 1): [8.0, 8.01, 8.02], ("looped", 4): [7.0, 7.01, 7.02]}
    runs = runs_of(
        values,
        baseline=7.5,
        tallies={cell["name"]: tally(150, 20, 10, 20) for cell in cells_of(values)},
        metrics=metrics,
        windows={"": Windows.independent(4)},
    )
    for scored in runs.baselines.values():
        scored[0].tallies.update(tally(20, 30, 150, 25))  # type: ignore[arg-type]  # a split is a str
    verdict = judge_runs(runs, margin=0.2, plan=plan).verdict
    decision, step = verdict.statements[0], verdict.statements[-1]
    assert isinstance(decision, Decision)
    assert isinstance(step, NextStep)
    assert decision.why == "period"
    assert verdict.headline == (
        "Undecided: looped with 4 loops is ahead of naive, but the test split is too small to be sure."
    )
    assert step.what == what


def test_a_further_seed_takes_what_the_runs_took() -> None:
    cells = cells_of({("looped", 1): [1.0, 1.0], ("looped", 4): [1.0, 1.0]})
    for cell, seconds in zip(cells, (10.0, 20.0, 40.0, 80.0), strict=True):
        cell["train_seconds"] = seconds
    assert block_seconds(cells) == pytest.approx(15 + 60)
    assert block_seconds(cells, jobs=2) == pytest.approx((15 + 60) / 2)
    assert block_seconds([]) is None
