"""A full disk is reported in one line, whichever library ran into it and whatever it said."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopedge.errors import DiskFullError, InputError, VerificationError
from loopedge.files.full_disk import is_full_disk
from loopedge.files.staging import scratch_folder, staged_folder

SILENT = [OSError("a write of numpy failed"), VerificationError("the file is damaged")]


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=count))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_an_error_that_says_so_is_believed(tmp_path: Path, code: int) -> None:
    assert is_full_disk(OSError(code, "no space"), tmp_path)


@pytest.mark.parametrize("error", SILENT)
@pytest.mark.parametrize(("left", "full"), [(0, True), (1 << 30, False)])
def test_where_none_is_given_the_free_space_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, left: int, full: bool
) -> None:
    free(monkeypatch, left)
    assert is_full_disk(error, tmp_path) == full
    assert not is_full_disk(OSError(errno.EACCES, "denied"), tmp_path)


@pytest.mark.parametrize("error", SILENT)
@pytest.mark.parametrize("stage", [staged_folder, scratch_folder])
def test_what_fails_in_a_stage_for_want_of_space_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, stage: object
) -> None:
    free(monkeypatch, 0)
    with (
        pytest.raises(DiskFullError, match="no space left on the disk that holds") as raised,
        stage(tmp_path / "m.onnx"),  # type: ignore[operator]
    ):
        raise error
    assert isinstance(raised.value, InputError)
    assert list(tmp_path.iterdir()) == []


def test_with_room_an_error_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 1 << 30)
    with (
        pytest.raises(VerificationError, match="the file is damaged"),
        staged_folder(tmp_path / "m.onnx"),
    ):
        raise SILENT[1]
