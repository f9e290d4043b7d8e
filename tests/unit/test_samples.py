"""What each sample of a run adds to its score, written beside the run and read again."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.study.runs.samples import MOST_NUMBERS, read_samples, write_samples

if TYPE_CHECKING:
    from loopedge.tasks.metrics import Tally
    from loopedge.tasks.task import Split


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    tallies: dict[Split, Tally] = {
        "validation": {"squared": np.arange(6.0).reshape(3, 2), "asked": np.ones(3)},
        "test": {"squared": np.array([[0.1, np.pi], [1e300, -0.0]]), "asked": np.zeros(2)},
    }
    write_samples(path, tallies)
    found = read_samples(path)
    assert set(found) == {"validation", "test"}
    for split, tally in tallies.items():
        assert set(found[split]) == set(tally)
        for name, values in tally.items():
            assert found[split][name].tobytes() == np.asarray(values).tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npz"]
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            "validation.squared", "validation.asked", "test.squared", "test.asked",
        }  # fmt: skip


def test_a_split_with_too_many_numbers_is_left_out_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    large = np.zeros((2, MOST_NUMBERS // 2), np.float32)
    write_samples(path, {"validation": {"confusion": large}, "test": {"right": np.ones(2)}})
    assert set(read_samples(path)) == {"validation", "test"}
    write_samples(path, {"validation": {"confusion": large, "right": np.ones(2)}, "test": {}})
    assert read_samples(path) == {}


def test_a_file_that_is_no_archive_or_holds_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "looped-r1-s0" / "samples.npz"
    path.parent.mkdir(parents=True)
    for content in (b"", b"PK\x03\x04 torn", b"neither"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="does not hold the samples of a run") as caught:
            read_samples(path)
        assert caught.value.hint is not None
        assert f"rm -r {path.parent}" in caught.value.hint
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **{"test.right": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(InputError, match="does not hold the samples of a run"):
        read_samples(path)
    path.unlink()
    with pytest.raises(InputError, match="does not hold the samples of a run"):
        read_samples(path)
