"""Which samples calibrate, choose and judge."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loopedge_calibration.roles import chooses, even_blocks, judges, left_to_calibrate, odd_blocks


@given(st.integers(2, 300))
def test_every_sample_has_one_role(total: int) -> None:
    places = np.arange(total)
    roles = [judges(places, total), chooses(places, total), left_to_calibrate(True)(places, total)]
    np.testing.assert_array_equal(np.sum(roles, axis=0), 1)
    assert roles[0].any()
    assert roles[2].any()


@given(st.integers(2, 300))
def test_blocks_take_turns(total: int) -> None:
    places = np.arange(total)
    even, odd = even_blocks(places, total), odd_blocks(places, total)
    assert even.any()
    assert odd.any()
    np.testing.assert_array_equal(even ^ odd, np.ones(total, np.bool_))


def test_one_sample_calibrates() -> None:
    assert left_to_calibrate(True)(np.arange(1), 1).all()
