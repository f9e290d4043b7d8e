"""How far two outputs are apart: the largest error, and the share of the noise."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loopedge.graph.agreement import (
    LargestError,
    NoiseRatio,
    at_kept,
    largest_error,
    noise_ratio,
    sqnr_db,
    worst,
)

NAN, INFINITY = math.nan, math.inf


def array(*values: float) -> NDArray[Any]:
    return np.array(values, np.float32)


def test_the_largest_error_is_against_the_largest_value() -> None:
    error = largest_error(array(1, -7.5, 2), array(1, -8, 2))
    assert error == LargestError(absolute=0.5, relative=0.5 / 8)
    assert largest_error(array(0.25), array(0)) == LargestError(absolute=0.25, relative=0.25)


def test_an_offset_is_no_part_of_what_an_output_tells() -> None:
    """Of 1000 + 8 with an error of 0.5, the 1000 is the mean of the data."""
    exact, given = array(1008, 1000), array(1008.5, 1000)
    error = largest_error(given, exact, array(1000, 1000))
    assert error.absolute == 0.5
    assert error.relative == pytest.approx(0.5 / 8, rel=1e-2)
    rounded = largest_error(array(1008) * np.float32(1 + 1e-7), array(1008), array(1000))
    assert rounded.relative == 0  # adding 1000 in float32 rounds that much off


def test_nan_agrees_with_nan_alone() -> None:
    assert largest_error(array(1, NAN), array(1, NAN)) == LargestError(absolute=0, relative=0)
    for given, expected in (
        (array(1, NAN), array(1, 2)),
        (array(1, 2), array(1, NAN)),
        (array(INFINITY), array(-INFINITY)),
        (array(1, 2), array(1)),
        (np.array(["a"]), np.array(["b"])),
    ):
        assert largest_error(given, expected).relative == INFINITY


def test_integers_and_truth_values_are_compared_as_numbers() -> None:
    assert largest_error(np.array([3, 5]), np.array([3, 4])).absolute == 1
    assert largest_error(np.array([True]), np.array([False])).absolute == 1


def test_the_worst_of_several_has_both_largest_errors() -> None:
    errors = [
        LargestError(absolute=1.0, relative=0.1),
        LargestError(absolute=0.5, relative=0.25),
    ]
    assert worst(errors) == LargestError(absolute=1.0, relative=0.25)
    assert worst([]) == LargestError(absolute=0.0, relative=0.0)


def test_padded_positions_are_left_out() -> None:
    outputs, mask = np.arange(12).reshape(2, 3, 2), np.array([[1, 0, 1], [0, 0, 1]])
    assert at_kept(outputs, mask).tolist() == [[0, 1], [4, 5], [10, 11]]
    assert at_kept(outputs, None) is outputs
    assert at_kept(outputs[:, 0], mask).shape == (2, 2)  # of another axis
    assert at_kept(outputs, np.zeros((2, 3))) is outputs  # no output passes unseen


def test_decibels_of_powers() -> None:
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert sqnr_db(1.0, 0.0) == 200.0
    assert sqnr_db(0.0, 1.0) == -200.0
    assert sqnr_db(1.0, NAN) == -INFINITY


def test_the_share_of_the_noise_is_over_all_outputs_of_all_runs() -> None:
    exact = [{"y": array(3, 0)}, {"y": array(0, 4)}]
    given = [{"y": array(3, 0.3)}, {"y": array(0.4, 4)}]
    ratio = noise_ratio(exact, given)
    assert ratio.share == pytest.approx(0.1)
    assert ratio.db == pytest.approx(20.0)
    with_offset = noise_ratio(exact[:1], given[:1], {"y": array(2, 0)})
    assert with_offset.share == pytest.approx(0.3)


def test_a_share_of_nothing_and_of_what_is_no_number() -> None:
    silent, broken = NoiseRatio(), NoiseRatio()
    assert silent.share == 0.0
    silent.add(array(0), array(1))
    assert silent.share == 1.0
    broken.add(array(1), array(NAN))
    assert broken.share == INFINITY
    assert broken.db == -INFINITY
