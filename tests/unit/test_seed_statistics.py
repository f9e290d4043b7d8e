"""Means over seeds and their intervals."""

import math

import pytest

from loopedge.study.judging.statistics import interval_of, over_seeds, student_quantile


@pytest.mark.parametrize(
    ("seeds", "quantile"), [(2, 12.706), (5, 2.776), (30, 2.045), (31, 2.042), (100, 1.984)]
)
def test_the_quantiles_are_those_that_tables_of_students_t_print(
    seeds: int, quantile: float
) -> None:
    assert student_quantile(seeds) == pytest.approx(quantile, abs=5e-4)


def test_an_interval_of_a_hundred_seeds() -> None:
    found = interval_of([float(number % 2) for number in range(100)])
    assert found is not None
    assert found.low is not None
    # half, and 1.984 standard errors of a deviation of sqrt(25 / 99)
    assert found.low == pytest.approx(0.5 - 1.984 * math.sqrt(25 / 99) / 10, abs=1e-4)
    assert found.excludes_zero


def test_an_interval_needs_three_values() -> None:
    assert interval_of([]) is None
    two = interval_of([1.0, 2.0])
    assert two is not None
    assert (two.mean, two.low, two.high, two.excludes_zero) == (1.5, None, None, False)
    three = interval_of([1.0, 2.0, 3.0])
    assert three is not None
    half = 4.3026527 / math.sqrt(3)
    assert three.low == pytest.approx(2 - half)
    assert three.high == pytest.approx(2 + half)
    assert not three.excludes_zero
    equal = interval_of([1.0, 1.0, 1.0])
    assert equal is not None
    assert equal.excludes_zero
    assert interval_of([-2.0, -2.1, -1.9]).excludes_zero  # type: ignore[union-attr]


def test_a_mean_leaves_out_what_is_no_number() -> None:
    over = over_seeds([1.0, math.nan, 3.0, math.inf])
    assert over is not None
    assert (over.mean, over.values) == (2.0, [1.0, 3.0])
    assert over_seeds([math.nan]) is None
    assert over_seeds([5.0]).sd is None  # type: ignore[union-attr]
