"""The luck of a test split: influences of samples, blocks of windows, series and origins apart."""

import math

import numpy as np
import pytest

from loopedge.study.judging.period import (
    Windows,
    blocks_of,
    influences,
    period_luck,
    windows_of,
)
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import Metrics, Tally, class_metrics
from loopedge.tasks.series import SeriesTask
from tests.unit.test_series import ramp


def rmse(tally: Tally) -> Metrics:
    return {"rmse": math.sqrt(float(tally["squared"]) / float(tally["asked"]))}


def row(samples: int, reach: int) -> Windows:
    return Windows(series=np.zeros(samples, np.int64), places=np.arange(samples), reach=reach)


def test_the_influence_of_a_sample_is_the_derivative_of_the_metric() -> None:
    draw = np.random.default_rng(0)
    squared = draw.exponential(size=50)
    found = influences({"squared": squared, "asked": np.ones(50)}, rmse, "rmse")
    whole = math.sqrt(squared.mean())
    np.testing.assert_allclose(found, (squared - squared.mean()) / (2 * whole * 50), rtol=1e-4)
    assert found.sum() == pytest.approx(0, abs=1e-6)


def test_of_independent_samples_it_is_the_variance_of_a_mean() -> None:
    draw = np.random.default_rng(1)
    right = (draw.random((2, 80)) < 0.8).astype(float)
    changes = np.stack(
        [influences({"right": of, "asked": np.ones(80)}, class_metrics, "accuracy") for of in right]
    )
    luck = period_luck(changes, Windows.independent(80))
    np.testing.assert_allclose(luck.covariance, np.cov(right) / 80, rtol=1e-6)
    assert (luck.length, luck.degrees) == (1, 79)


def test_it_is_what_a_drawn_bootstrap_of_blocks_gives() -> None:
    draw = np.random.default_rng(2)
    innovations = draw.normal(size=430)
    smooth = np.convolve(innovations, np.ones(7) / 7, "valid")[:400]
    changes = ((smooth - smooth.mean()) / 400)[None]
    luck = period_luck(changes, row(400, 7))
    blocks = blocks_of(changes[0], row(400, 7))
    starts = draw.integers(0, 400 - luck.length + 1, (4000, round(400 / luck.length)))
    sums = np.convolve(changes[0], np.ones(luck.length), "valid")
    drawn = (sums[starts] - sums.mean()).sum(axis=1).var() * 400 / (400 - luck.length)
    assert luck.covariance[0, 0] == pytest.approx(drawn * blocks.correction, rel=0.15)
    # and near to what such a mean truly varies by: innovations of variance 1, 400 of them
    assert math.sqrt(luck.covariance[0, 0]) == pytest.approx(1 / math.sqrt(400), rel=0.35)


def test_blocks_are_as_long_as_windows_overlap_and_errors_last() -> None:
    draw = np.random.default_rng(3)
    noise = draw.normal(size=300)
    assert blocks_of(noise, Windows.independent(300)).length == 1
    assert blocks_of(noise, row(300, 12)).length >= 23
    apart = Windows(series=np.zeros(300, np.int64), places=np.arange(300) * 12, reach=12)
    assert blocks_of(noise, apart).length <= 6
    slow = np.zeros(300)
    for step in range(1, 300):
        slow[step] = 0.9 * slow[step - 1] + noise[step]
    assert blocks_of(slow - slow.mean(), row(300, 1)).length > 8
    assert blocks_of(noise[:8], row(8, 50)).length == 2  # a quarter of the windows


def test_a_share_of_right_answers_is_never_known_for_sure() -> None:
    luck = period_luck(np.zeros((1, 96)), Windows.independent(96), bounded=True)
    # Bonett and Price: two samples more, one for either side
    assert math.sqrt(luck.covariance[0, 0]) == pytest.approx(math.sqrt(2) / 96)
    assert not period_luck(np.zeros((1, 96)), Windows.independent(96)).covariance.any()


def test_series_that_move_together_are_not_taken_as_independent() -> None:
    draw = np.random.default_rng(4)
    common = draw.normal(size=100)
    together = np.concatenate([common, common, common, common])
    windows = Windows(series=np.repeat(np.arange(4), 100), places=np.arange(400), reach=1)
    changes = ((together - together.mean()) / 400)[None]
    luck = period_luck(changes, windows)
    assert math.sqrt(luck.covariance[0, 0]) == pytest.approx(common.std() / 10, rel=0.3)
    apart = draw.normal(size=400)
    alone = period_luck(((apart - apart.mean()) / 400)[None], windows)
    assert math.sqrt(alone.covariance[0, 0]) == pytest.approx(apart.std() / 20, rel=0.5)


def test_windows_of_a_task_follow_its_evaluation() -> None:
    task = SeriesTask(ramp(200), context=8, horizon=4)
    windows = windows_of(task, 20)
    assert windows is not None
    np.testing.assert_array_equal(windows.places, task.evaluated_stops("test", 20))
    assert windows.reach == task.horizon
    assert windows_of(SortingTask(length=4, vocab=6), 20) is None
