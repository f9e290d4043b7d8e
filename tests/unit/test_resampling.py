"""The block bootstrap of a test split, against deviations that are known from theory."""

from typing import Any

import numpy as np
import pytest

from loopedge.baselines.resampling import block_length, draw_blocks, metric_draws
from loopedge.data.tables.columns import Columns
from loopedge.tasks.series import SeriesTask

SAMPLES = 800


def autoregressive(draw: np.random.Generator, rows: int, memory: float) -> Any:
    values = np.zeros(rows)
    for row, noise in enumerate(draw.normal(size=rows)):
        values[row] = memory * values[row - 1] + noise
    return values


def test_every_resampling_has_as_many_samples_of_each_series() -> None:
    series = np.repeat([0, 1, 2], [30, 7, 50])
    blocks = draw_blocks(series, length=7, draws=200)
    assert blocks.weights.shape == (200, 87)
    for number, rows in ((0, 30), (2, 50)):
        assert (blocks.weights[:, series == number].sum(axis=1) == rows).all()
    whole = blocks.weights[:, series == 1]  # as long as a block: whole or not at all
    assert (whole == whole[:, :1]).all()
    assert blocks.count == 30 // 7 + 1 + 50 // 7


def test_a_block_holds_neighbours() -> None:
    blocks = draw_blocks(np.zeros(40, np.int64), length=10, draws=50)
    changes = np.count_nonzero(np.diff(blocks.weights, axis=1), axis=1)
    assert changes.max() <= 8  # four blocks have eight edges at most


def test_equal_seeds_draw_equal_blocks_and_others_do_not() -> None:
    series = np.zeros(60, np.int64)
    first = draw_blocks(series, length=5, draws=20, seed=3)
    assert (first.weights == draw_blocks(series, length=5, draws=20, seed=3).weights).all()
    assert (first.weights != draw_blocks(series, length=5, draws=20, seed=4).weights).any()


def test_independent_samples_have_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=SAMPLES)
    blocks = draw_blocks(np.zeros(SAMPLES, np.int64), length=block_length(values), draws=2000)
    deviation = (blocks.weights @ values / SAMPLES).std()
    assert deviation == pytest.approx(1 / np.sqrt(SAMPLES), rel=0.2)


def test_neighbours_that_resemble_each_other_widen_it_as_theory_says() -> None:
    draw = np.random.default_rng(2)
    memory = 0.7
    found = []
    for _ in range(8):
        values = autoregressive(draw, SAMPLES, memory)
        length = block_length(values)
        assert 5 <= length <= SAMPLES // 4
        blocks = draw_blocks(np.zeros(SAMPLES, np.int64), length=length, draws=400)
        found.append((blocks.weights @ values / SAMPLES).std())
    # The mean of an AR(1) has the standard error sigma / (1 - memory) / sqrt(n).
    expected = 1 / (1 - memory) / np.sqrt(SAMPLES)
    assert np.mean(found) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("values", [np.zeros(50), np.ones(3), np.arange(9.0)])
def test_a_length_is_found_of_what_never_varies_or_is_short(values: Any) -> None:
    assert block_length(values, least=2) == min(2, max(1, len(values) // 4))


def test_the_metric_of_a_resampling_is_that_of_its_samples() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(size=(300, 1))
    columns = Columns(names=("y",), values=values, observed=np.ones(values.shape, bool))
    task = SeriesTask(columns, horizon=2, context=4)
    squared, asked = draw.uniform(size=(20, 1)), np.full((20, 1), 2.0)
    tallies = {"squared": squared, "absolute": squared, "asked": asked}
    blocks = draw_blocks(np.zeros(20, np.int64), length=4, draws=6)
    found = metric_draws(task, tallies, blocks)
    for draws, weights in zip(found, blocks.weights, strict=True):
        samples = np.repeat(np.arange(20), weights)
        assert draws == pytest.approx(np.sqrt(squared[samples].sum() / 40))
