"""Losses that say whether a run still trains."""

import math

import numpy as np
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
def test_a_loss_far_above_the_last_ones_is_lost(loss: float) -> None:
    assert after(1.8).is_lost(loss)
    assert after(*[1.8] * 500).is_lost(loss)


def test_a_rise_stays_a_rise_while_it_goes_on() -> None:
    trend = after(*[1.0] * 20)
    for loss in (10.0, 248.0, 1e5, 1e6, 1e9):
        assert trend.is_lost(loss)
        trend.add(loss)


def test_the_noise_of_batches_is_no_loss() -> None:
    """Squares of normal numbers, as the losses of single samples are: their logarithms are far apart."""
    losses = np.random.default_rng(0).normal(size=2000) ** 2
    trend = after(*losses[:200])
    lost = 0
    for loss in losses[200:]:
        lost += trend.is_lost(float(loss))
        trend.add(float(loss))
    assert lost == 0


@pytest.mark.parametrize("first", [0.0, 1e-9, -3e-8])
def test_a_lucky_first_batch_spoils_nothing(first: float) -> None:
    trend = after(first, *[0.9] * 300)
    assert not trend.is_lost(1.5)
    assert trend.is_lost(1e20)


def test_a_loss_that_stays_high_is_not_lost_for_ever() -> None:
    assert after(*[1e-9] * 500).is_lost(5e-4)
    assert not after(*[1e-9] * 500, *[5e-4] * 500).is_lost(5e-4)


def test_a_loss_that_is_not_positive_says_nothing() -> None:
    assert after(1.0, 0.0, -3e-8) == after(1.0)
    assert not after(1.0).is_lost(0.0)
