"""Which part of the data judges the ranges that the rest gave, for ``--ranges auto``."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loopedge.errors import InputError
from loopedge_calibration.collector import UNJUDGED, collect, held_out_parts
from loopedge_calibration.observers import METHODS
from loopedge_calibration.readers import SampleBatch

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"


def split(sizes: list[int], *, fixed: bool = False) -> tuple[list[int], list[int]]:
    """Number all samples; return those that are fitted and those that judge."""
    numbers = iter(range(sum(sizes)))
    batches = [
        SampleBatch(
            feeds={"x": np.array([next(numbers) for _ in range(size)])},
            numbers=tuple(range(1, size + 1)),
        )
        for size in sizes
    ]
    fitted: list[int] = []
    judged: list[int] = []
    for batch, held_out in held_out_parts(iter(batches), fixed=fixed):
        (judged if held_out else fitted).extend(batch.feeds["x"].tolist())
    return fitted, judged


@pytest.mark.parametrize(
    ("sizes", "judged"),
    [
        ([2, 2, 2, 2, 2], 2),
        ([8], 2),
        ([3, 3, 3], 2),
        ([4, 1], 1),
        ([3], 1),
        ([1, 1], 1),
        ([1], 0),
        ([], 0),
    ],
)
def test_a_quarter_of_the_data_judges_however_little_there_is(
    sizes: list[int], judged: int
) -> None:
    fitted, held_out = split(sizes)
    assert len(held_out) == judged
    assert sorted(fitted + held_out) == list(range(sum(sizes)))


def test_of_much_data_about_a_quarter_judges() -> None:
    fitted, held_out = split([8] * 200)
    assert sorted(fitted + held_out) == list(range(1600))
    assert len(held_out) == pytest.approx(400, abs=80)  # five standard deviations are 87


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [8] * 16])
def test_what_a_sample_holds_says_whether_it_judges(sizes: list[int]) -> None:
    once = split(sizes)
    for other in (sizes[::-1], [sum(sizes)], [1] * sum(sizes)):
        assert [sorted(part) for part in split(other)] == [sorted(part) for part in once]


def test_a_loop_count_is_of_no_sample() -> None:
    """A count beside the samples, () or (1,), neither keeps a batch whole nor says which samples judge."""
    values = np.arange(16.0)
    for count in (np.array(4), np.array([4])):
        parts = []
        for sizes in ([16], [8, 8], [4] * 4, [1] * 16):
            batches = [
                SampleBatch(feeds={"x": rows, "loops": count}, numbers=tuple(range(len(rows))))
                for rows in np.split(values, np.cumsum(sizes)[:-1])
            ]
            found = held_out_parts(iter(batches), fixed=False, counts={"loops"})
            judged = [batch.feeds["x"].tolist() for batch, judges in found if judges]
            parts.append(sorted(each for some in judged for each in some))
        assert len(parts[0]) == 4
        assert parts == parts[:1] * 4


@pytest.mark.parametrize(("sizes", "judged"), [([4], 0), ([4, 4], 4), ([4] * 5, 4)])
def test_batches_of_a_fixed_size_stay_whole(sizes: list[int], judged: int) -> None:
    assert len(split(sizes, fixed=True)[1]) == judged


def ids(batches: int, samples: int) -> list[dict[str, NDArray[np.int64]]]:
    generator = np.random.default_rng(0)
    return [{"input_ids": generator.integers(0, 8, (samples, 6))} for _ in range(batches)]


def test_auto_judges_on_one_batch_as_on_the_same_samples_one_by_one() -> None:
    """Eight batches of one sample and one of eight hold the same samples, and so the same parts."""
    (whole,) = ids(1, 8)
    single = [{"input_ids": whole["input_ids"][i : i + 1]} for i in range(8)]
    options = {"granularity": "auto", "threads": 1, "smoothing": False}
    one, many = (collect(TINY, data, **options) for data in ([whole], single))  # type: ignore[arg-type]
    assert {name: item.shared for name, item in one.tensors.items()} == {
        name: item.shared for name, item in many.tensors.items()
    }
    for name, item in one.tensors.items():
        assert np.allclose(item.high, many.tensors[name].high, rtol=1e-3)
    assert UNJUDGED not in one.warnings


@pytest.mark.parametrize("method", METHODS)
def test_no_order_of_the_samples_changes_a_range(method: str) -> None:
    """Rows of batches of one size change places across batches; what a row gives hangs on no other row."""
    whole = np.concatenate([feeds["input_ids"] for feeds in ids(4, 4)])
    tables = [
        collect(
            TINY,
            [{"input_ids": rows} for rows in np.split(whole[order], 4)],
            method=method,
            threads=1,
        )
        for order in (np.arange(16), np.random.default_rng(0).permutation(16))
    ]
    assert tables[0].tensors == tables[1].tensors


def test_the_same_sample_throughout_is_refused() -> None:
    row = np.arange(6)
    for values in (np.zeros((70, 6), np.int64), np.tile(row, (70, 1))):
        with pytest.raises(InputError, match=r"does not vary|are the same one"):
            collect(TINY, [{"input_ids": values}], granularity="auto", threads=1)


def test_auto_says_where_nothing_was_left_to_judge_by() -> None:
    table = collect(TINY, ids(1, 1), granularity="auto", threads=1)
    assert UNJUDGED in table.warnings
    assert not any(item.shared for item in table.tensors.values())
    assert UNJUDGED not in collect(TINY, ids(1, 1), threads=1).warnings
