"""Losses that say whether a run still trains."""

import math

import pytest

from loopedge.trainer.trend import Trend


def after(*losses: float) -> Trend:
    trend = Trend()
    for loss in losses:
        trend.add(loss)
    return trend


def test_nothing_is_lost_before_the_first_step() -> None:
    assert not Trend().is_lost(1e9)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 248.0])
def test_a_loss_far_above_the_untrained_one_is_lost(loss: float) -> None:
    assert after(1.8).is_lost(loss)


def test_the_noise_of_a_run_that_gains_nothing_is_no_loss() -> None:
    assert not after(1.8, 1.7, 1.9, 1.6).is_lost(3.1)


def test_a_run_is_lost_when_half_of_its_gain_is() -> None:
    trend = after(1.0, *[0.01] * 400)
    assert trend.lowest == pytest.approx(0.01, rel=1e-3)
    assert trend.bound == pytest.approx(2 * 0.1, rel=1e-3)  # twice the middle of 1 and 0.01
    assert not trend.is_lost(0.15)
    assert trend.is_lost(0.3)


def test_one_lucky_batch_moves_the_bound_little() -> None:
    assert after(1.0, 1e-9).bound == pytest.approx(2 * math.sqrt(0.9))


def test_a_loss_of_zero_at_the_start_says_nothing() -> None:
    assert not after(0.0, 0.5).is_lost(7.0)
