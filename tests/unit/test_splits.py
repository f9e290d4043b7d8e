"""Splits of whole series: small classes still give every split its share."""

import numpy as np
import pytest

from loopedge.tasks.splits import split_series
from loopedge.tasks.task import SPLITS


@pytest.mark.parametrize(
    ("classes", "size", "shares"), [(10, 3, (21, 5, 4)), (20, 2, (28, 6, 6)), (1, 3, (1, 1, 1))]
)
def test_rounding_is_carried_over_classes(
    classes: int, size: int, shares: tuple[int, int, int]
) -> None:
    labels = np.repeat(np.arange(classes), size)
    found = split_series([f"s{n}" for n in range(len(labels))], labels)
    assert tuple(len(found[split]) for split in SPLITS) == shares
    assert set(labels[found["train"]]) == set(range(classes))
