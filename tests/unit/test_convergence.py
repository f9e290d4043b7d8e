"""Whether a run was still improving when it ended, judged on curves whose answer is known."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.study.runs.convergence import Convergence, judge_convergence, least_gain

if TYPE_CHECKING:
    from loopedge.tasks.metrics import Metrics

STEPS = 400


def lines_of(
    values: list[float], *, metric: str = "rmse", steps: int = STEPS
) -> list[dict[str, Any]]:
    """Return a line per evaluation, evenly over the steps."""
    every = steps // max(1, len(values))
    return [
        {"step": (place + 1) * every, "validation": {metric: value}}
        for place, value in enumerate(values)
    ]


def judged(values: list[float], *, least: float = 0.02, higher: bool = False) -> Convergence:
    return judge_convergence(
        lines_of(values), "rmse", higher_is_better=higher, least=least, steps=STEPS
    )


def curve(value: Callable[[float], float]) -> list[float]:
    """Return twenty values at shares .05, .1, ... 1 of the run."""
    return [value((place + 1) / 20) for place in range(20)]


@pytest.mark.parametrize(
    ("value", "converged"),
    [
        (lambda share: 2 - share, False),  # a quarter gains .25
        (lambda share: 2 - 0.07 * share, True),  # a quarter gains .0175
        (lambda share: 1 + math.exp(-12 * share), True),  # settled after a third
        (lambda share: 1 + math.exp(-2 * share), False),  # .09 in the last quarter
        (lambda share: 1.0, True),
        (lambda share: 1 + 0.3 * share, True),  # it became worse
        (
            lambda share: 1.5 if share < 0.75 else 1.5 - 2 * (share - 0.75),
            False,
        ),  # late, as the rate falls
    ],
)
def test_curves_without_noise(value: Callable[[float], float], *, converged: bool) -> None:
    values = curve(value)
    assert judged(values).converged is converged
    # The same curve the other way up, where more is better.
    assert judged([-value for value in values], higher=True).converged is converged


def test_the_gain_is_that_of_a_quarter_of_the_steps() -> None:
    found = judged(curve(lambda share: 2 - share))
    assert found.gain == pytest.approx(0.25)
    assert found.error == pytest.approx(0.0, abs=1e-12)


def test_one_lucky_evaluation_at_the_end_is_not_an_improvement() -> None:
    values = curve(lambda share: 1.0)
    values[-1] = 0.5  # the best step is the last one
    assert judged(values).converged is True
    values = curve(lambda share: 2 - share)
    values[-1] = 2.0  # and an unlucky one hides none
    assert judged(values).converged is False


def test_noise_is_seldom_taken_for_an_improvement_and_hides_none_that_is_large() -> None:
    draw = np.random.default_rng(0)
    flat = [judged(list(1 + 0.05 * draw.normal(size=20))).converged for _ in range(400)]
    assert flat.count(False) <= 40  # a tenth
    falling = [
        judged(list(curve(lambda share: 2 - 2 * share) + 0.05 * draw.normal(size=20))).converged
        for _ in range(400)
    ]
    assert falling.count(False) >= 380


def test_few_evaluations_and_those_that_are_no_number() -> None:
    assert judged([1.0, 0.9]).converged is None
    assert judged([]).converged is None
    assert judged([3.0, 2.0, 1.0]).converged is False  # the last three, where a quarter has fewer
    values = curve(lambda share: 2 - share)
    values[0] = values[16] = math.nan
    assert judged(values).converged is False


def test_a_run_that_ended_early_is_judged_over_the_steps_that_it_made() -> None:
    values = [*np.linspace(2, 1, 10), *[1.0] * 10]
    found = judge_convergence(
        lines_of(values, steps=200), "rmse", higher_is_better=False, least=0.02, steps=200
    )
    assert found.converged is True


def test_the_gain_that_counts_is_half_of_two_percent_of_the_baselines_error() -> None:
    baselines: dict[str, Metrics] = {
        "last": {"rmse": 5.0},
        "seasonal": {"rmse": 4.0},
        "none": {"rmse": None},
    }
    assert least_gain(baselines, {"rmse": 1.0}, "rmse", higher_is_better=False) == pytest.approx(
        0.04
    )
    shares: dict[str, Metrics] = {"most_frequent": {"accuracy": 0.2}}
    least = least_gain(shares, {"accuracy": 0.9}, "accuracy", higher_is_better=True)
    assert least == pytest.approx(0.008)  # of what is missing to 1
    assert least_gain({}, {"rmse": 3.0}, "rmse", higher_is_better=False) == pytest.approx(0.03)
