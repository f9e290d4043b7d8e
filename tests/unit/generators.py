"""What the tests of `loopedge.Generator` share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROMPT", "close"]

PROMPT = [84, 104, 101, 32, 108, 111, 111, 112]


def close(found: NDArray[Any], wanted: NDArray[Any], error: float = 2e-5) -> None:
    """Hold that logits are near others, against the largest of these."""
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= error * np.abs(wanted).max()
