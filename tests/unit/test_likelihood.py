"""Likelihoods against a plain computation in float64, and counted baselines."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopedge.tasks import likelihood
from loopedge.tasks.likelihood import (
    bigram_logits,
    bits_per_byte,
    negative_log_likelihood,
    perplexity,
    rows_at_once,
    unigram_logits,
)
from loopedge.tasks.metrics import IGNORED


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(2, 30)),
    scale=st.sampled_from([0.1, 1.0, 300.0]),
    piece=st.sampled_from([1, 40, 1 << 20]),
)
def test_it_is_the_sum_of_minus_log_softmax(
    seed: int, shape: tuple[int, int, int], scale: float, piece: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = (generator.standard_normal(shape) * scale).astype(np.float32)
    targets = generator.integers(0, shape[-1], shape[:2])
    targets[generator.random(shape[:2]) < 0.3] = IGNORED
    exact = logits.astype(np.float64)
    top = exact.max(axis=-1, keepdims=True)
    shares = exact - top - np.log(np.exp(exact - top).sum(axis=-1, keepdims=True))
    expected = -sum(
        shares[at][targets[at]] for at in zip(*np.nonzero(targets != IGNORED), strict=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "PIECE", piece)
        found = negative_log_likelihood(logits, targets)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_nothing_asked_costs_nothing() -> None:
    assert negative_log_likelihood(np.ones((1, 2, 3), np.float32), np.full((1, 2), IGNORED)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_has_no_likelihood(value: float) -> None:
    logits = np.full((1, 2, 3), value, np.float32)
    assert math.isnan(negative_log_likelihood(logits, np.zeros((1, 2), np.int64)))


def test_perplexity_of_a_fair_die() -> None:
    assert perplexity(5 * math.log(6), 5) == pytest.approx(6)
    assert perplexity(1e9, 1) == math.inf
    assert math.isnan(perplexity(math.nan, 1))


def test_eight_bits_tell_any_byte() -> None:
    assert bits_per_byte(10 * math.log(256), 10) == pytest.approx(8)


def test_counts_are_smoothed_by_one() -> None:
    ids = np.array([0, 0, 1], np.uint8)
    np.testing.assert_allclose(np.exp(unigram_logits(ids, 4)), np.array([3, 2, 1, 1]) / 7, 1e-6)
    table = np.exp(bigram_logits(ids[:-1], ids[1:], 3))
    np.testing.assert_allclose(table, [[0.4, 0.4, 0.2], [1 / 3] * 3, [1 / 3] * 3], 1e-6)


def test_pairs_of_small_integers_do_not_overflow() -> None:
    ids = np.full(4, 255, np.uint8)
    assert bigram_logits(ids[:-1], ids[1:], 256)[255].argmax() == 255


def test_large_vocabularies_come_in_fewer_rows() -> None:
    assert rows_at_once(128, 64, 256) == 128
    assert rows_at_once(128, 1024, 50_000) == 1
    assert rows_at_once(128, 256, 4096) == 32
