"""Pilots at the edges: a metric of 0, arms in another order, a seed half made, a budget that is used up."""

import pytest

from loopedge.study.judging.choice import honest_quality


def test_a_metric_of_zero_counts_in_the_honest_quality() -> None:
    values = {("looped", 1): {"s0": 0.0, "s1": 0.0, "s2": 0.3}}
    found = honest_quality(values, values, margin=0.1, higher_is_better=False)
    assert found == pytest.approx(0.1)  # (0 + 0 + 0.3) / 3
