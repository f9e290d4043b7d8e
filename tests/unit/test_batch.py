"""A batch becomes the inputs of an exported graph, whether or not the graph takes a mask."""

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.sorting import SortingTask

PADDED = EditDistanceTask(length=5).batch("train", 3, 0)
WHOLE = SortingTask(length=4, vocab=6).batch("train", 3, 0)


def test_inputs_stand_under_the_names_of_the_graph() -> None:
    feeds = PADDED.feeds(["input_ids", "attention_mask"])
    assert list(feeds) == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(feeds["attention_mask"], PADDED.attention_mask)
    assert list(WHOLE.feeds(["input_ids"])) == ["input_ids"]


def test_a_graph_that_takes_a_mask_gets_one_that_keeps_all() -> None:
    mask = WHOLE.feeds(["input_ids", "attention_mask"])["attention_mask"]
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.ones((3, 9)))


def test_padding_that_the_graph_would_read_as_data_is_refused() -> None:
    with pytest.raises(InputError, match="takes no attention_mask") as caught:
        PADDED.feeds(["input_ids"])
    assert caught.value.hint == "loopedge export model.pt --padding"
