"""Counts of iterations in data that is calibrated on."""

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.graph.signature import InputSpec
from loopedge_calibration.loop_counts import LoopCounts

SPECS = {"loops": InputSpec(name="loops", dtype=np.dtype(np.int64), shape=())}


@pytest.mark.parametrize(
    ("asked", "exported", "held", "expected"),
    [(None, 8, None, 8), (4, 8, None, 4), (None, 8, 3, 3), (3, 8, 3, 3), (None, None, 3, 3)],
)
def test_the_data_says_the_count_then_who_asks_then_the_export(
    asked: int | None, exported: int | None, held: int | None, expected: int
) -> None:
    counts = LoopCounts(specs=SPECS, asked=asked, exported=exported)
    feeds = {} if held is None else {"loops": np.array(held)}
    assert counts.fed(feeds) == {"loops": expected}


@pytest.mark.parametrize(
    ("asked", "held", "text"),
    [
        (4, np.array(3), "holds 3 for the loop count loops, 4 loops were asked for"),
        (None, None, "takes a loop count"),
        (None, np.array(0), "at least 1"),
        (None, np.array(2.0), "whole number"),
        (None, np.array([2, 3]), "whole number"),
    ],
)
def test_counts_that_differ_or_are_none_are_refused(
    asked: int | None, held: np.ndarray | None, text: str
) -> None:
    counts = LoopCounts(specs=SPECS, asked=asked, exported=None)
    with pytest.raises(InputError, match=text):
        counts.fed({} if held is None else {"loops": held})
