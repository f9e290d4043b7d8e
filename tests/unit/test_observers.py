"""Streaming histograms and the ranges found from them."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from loopedge.quantizer.activations.ranges import TensorRange
from loopedge_calibration.histogram import BINS, RowHistograms
from loopedge_calibration.observers import METHODS, expected_noise, find_ranges

GENERATOR = np.random.default_rng(0)


def filled(values: NDArray[np.floating], pieces: int = 4) -> RowHistograms:
    histograms = RowHistograms(len(values))
    for piece in np.array_split(values, pieces, axis=1):
        histograms.update(piece)
    return histograms


def real_noise(values: NDArray[np.floating], low: float, high: float) -> float:
    scale, zero_point = TensorRange(low=[low], high=[high]).quantization()
    whole = np.rint(values / scale[0]) + zero_point[0]
    return float(np.mean((values - (whole.clip(0, 255) - zero_point[0]) * scale[0]) ** 2))


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(4, 50)),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
def test_nothing_is_lost_when_the_range_grows(values: NDArray[np.float32]) -> None:
    histograms = filled(values)
    assert (histograms.counts.sum(axis=1) == values.shape[1]).all()
    assert np.array_equal(histograms.low, values.min(axis=1))
    assert np.array_equal(histograms.high, values.max(axis=1))
    assert int(histograms.pooled().counts.sum()) == values.size


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(4, 50)),
        elements=st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -4.0, 1e-38, -1e-45, 3e38, -1e30]),
            st.floats(-1e3, 1e3, width=32),
        ),
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_values_and_batches_changes_nothing(
    values: NDArray[np.float32], random: Random
) -> None:
    """Values on the edges of bins, zeros and denormals, the largest one first or last."""
    places = list(range(values.shape[1]))
    random.shuffle(places)
    once = filled(values, 1)
    for pieces in (1, 2, values.shape[1]):
        other = filled(values[:, places], pieces)
        assert np.array_equal(once.counts, other.counts)
        assert np.array_equal(once.limit, other.limit)
        assert np.array_equal(once.pooled().counts, other.pooled().counts)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_depends_on_the_order_of_batches(method: str) -> None:
    """The first batch is the quietest, the loudest, or any."""
    values = GENERATOR.normal(size=(2, 64, 100)) * np.exp(GENERATOR.normal(size=(1, 64, 1)))
    values[:, 7] *= 40
    loudness = np.abs(values).max(axis=(0, 2)).argsort()
    orders = [loudness, loudness[::-1], np.arange(64), GENERATOR.permutation(64)]
    ranges = [find_ranges(filled(values[:, order].reshape(2, -1), 64), method) for order in orders]
    for low, high in ranges[1:]:
        assert np.array_equal(low, ranges[0][0])
        assert np.array_equal(high, ranges[0][1])


def test_a_value_lies_in_the_bin_that_holds_it() -> None:
    values = GENERATOR.normal(size=(1, 3000)) * np.exp(5 * GENERATOR.normal(size=(1, 3000)))
    histograms = filled(values, 30)
    width = 2 * histograms.limit[0] / BINS
    edges = (np.arange(BINS + 1) - BINS // 2) * width
    assert np.array_equal(histograms.counts[0], np.histogram(values, edges)[0])
    assert np.abs(values).max() * 2 >= histograms.limit[0] > np.abs(values).max()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_range_around_zero_inside_the_data(method: str) -> None:
    values = np.concatenate([GENERATOR.normal(size=(3, 5000)), np.full((3, 1), 40.0)], axis=1)
    histograms = filled(values)
    low, high = find_ranges(histograms, method)
    assert ((low <= 0) & (high > 0)).all()
    assert (low >= histograms.low - 1e-9).all()
    assert (high <= histograms.high + 1e-9).all()


def test_least_squared_error_beats_min_max_on_an_outlier() -> None:
    """One value in a million far out is not worth the resolution of all others."""
    values = np.concatenate([GENERATOR.normal(size=(1, 1_000_000)), [[9.0]]], axis=1)
    histograms = filled(values)
    ranges = {method: find_ranges(histograms, method) for method in ("minmax", "mse")}
    noise = {
        method: real_noise(values[0], low[0], high[0]) for method, (low, high) in ranges.items()
    }
    assert noise["mse"] < 0.9 * noise["minmax"]


def test_the_expected_noise_is_the_real_one() -> None:
    values = GENERATOR.normal(size=(1, 50_000))
    histograms = filled(values)
    for low, high in ((-4.5, 4.5), (-2.0, 2.0), (-1.0, 3.0)):
        expected = expected_noise(histograms, np.array([low]), np.array([high]))[0]
        assert expected == pytest.approx(real_noise(values[0], low, high), rel=0.05)


def test_zero_is_exact_whatever_the_range() -> None:
    for low, high in ((0.5, 3.0), (-3.0, -1.0), (-0.17, 4.0), (0.0, 0.0)):
        scale, zero_point = TensorRange(low=[low], high=[high]).quantization()
        assert scale[0] > 0
        assert 0 <= int(zero_point[0]) <= 255
        if low < high:
            assert (255 - zero_point[0]) * scale[0] >= high * 0.999
