from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from loopedge.errors import InputError
from loopedge.files.targets import check_target, file_sha256, write_text_atomic

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_replaces_a_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_text_atomic(target, "first")
    write_text_atomic(target, "zweite \N{LATIN SMALL LETTER U WITH DIAERESIS}")
    assert target.read_text(encoding="utf-8").endswith("ü")
    with pytest.raises(InputError, match="exists already"):
        write_text_atomic(target, "third", force=False)
    assert names(tmp_path) == ["report.html"]


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for name, force, words in (
        ("taken", False, "exists already"),
        ("nowhere/x", True, "does not exist"),
        ("taken/x", True, "does not exist"),
        (".", True, "is a folder"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check_target(tmp_path / name, force=force)
        assert caught.value.hint
    check_target(tmp_path / "taken", force=True)
    assert names(tmp_path) == ["taken"]


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"loop" * 10_000)
    assert file_sha256(path) == hashlib.sha256(b"loop" * 10_000).hexdigest()
