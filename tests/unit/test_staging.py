"""Files come into place together or not at all, and what dead writers leave goes with the next one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopedge.errors import InputError
from loopedge.files import staging
from loopedge.files.staging import MARKER, again_if_replaced, content_name, staged_folder

if TYPE_CHECKING:
    from collections.abc import Callable


class Killed(BaseException):
    """Stands for the end of the process: nothing of the writer runs afterwards."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, text: str, *, force: bool = True) -> None:
    """Write a model that names its data, which is called as its content says."""
    data = content_name("m.onnx", text * 16, "data")
    with staged_folder(folder / "m.onnx", force=force, replaced=named) as stage:
        (stage / data).write_text(text)
        (stage / "m.onnx").write_text(f"model, its weights stand in {data}")


def named(target: Path) -> set[str]:
    return {target.read_text().split()[-1]} if target.exists() else set()


def weights(folder: Path) -> str:
    """Read what the model names."""
    (data,) = named(folder / "m.onnx")
    return (folder / data).read_text()


A, B = "a", "b"
A_FILES, B_FILES = (["m.onnx", f"m.onnx.{letter * 16}.data"] for letter in (A, B))


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the process die at a boundary: 0 is before the first rename, 1 after it, and so on."""
    dead: list[bool] = []

    def unless_dead(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words, **more: None if dead else run(*words, **more)

    real, tidied = Path.replace, unless_dead(shutil.rmtree)
    monkeypatch.setattr(staging, "_remove_unnamed", unless_dead(staging._remove_unnamed))
    monkeypatch.setattr(staging, "shutil", SimpleNamespace(rmtree=tidied))

    def at(boundary: int) -> None:
        count = 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal count
            if count == boundary:
                dead.append(True)
                raise Killed
            moved = real(self, target)
            count += 1
            if count == boundary == 2:
                dead.append(True)
                raise Killed
            return moved

        monkeypatch.setattr(Path, "replace", replace)

    return at


def test_files_appear_together(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    with staged_folder(target) as folder:
        (folder / "m.onnx").write_text("graph")
        (folder / "m.onnx.data").write_text("weights")
        assert not target.exists()
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path, A)

    def fail() -> None:
        with staged_folder(tmp_path / "m.onnx") as folder:
            (folder / "m.onnx").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == A_FILES


@pytest.mark.parametrize(("boundary", "left"), [(0, A), (1, A), (2, B)])
def test_a_kill_between_renames_leaves_the_old_or_the_new(
    tmp_path: Path,
    kill: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    boundary: int,
    left: str,
) -> None:
    write(tmp_path, A)
    kill(boundary)
    with pytest.raises(Killed):
        write(tmp_path, B)
    assert weights(tmp_path) == left
    monkeypatch.undo()
    with staged_folder(tmp_path / "other.onnx") as folder:  # another writer, another target
        (folder / "other.onnx").write_text("graph")
    assert names(tmp_path) == [*(A_FILES if left == A else B_FILES), "other.onnx"]
    write(tmp_path, B)
    assert names(tmp_path) == [*B_FILES, "other.onnx"]


def test_a_kill_leaves_nothing_of_a_target_that_is_new(
    tmp_path: Path, kill: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(1)
    with pytest.raises(Killed):
        write(tmp_path, B)
    monkeypatch.undo()
    assert f"m.onnx.{B * 16}.data" in names(tmp_path)
    with staged_folder(tmp_path / "report.html"):
        pass
    assert names(tmp_path) == []


def test_a_target_that_cannot_be_replaced_stays_with_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, A)
    real = Path.replace

    def busy(self: Path, target: Path) -> Path:
        if target.name == "m.onnx":
            raise OSError(errno.EBUSY, "Device or resource busy", str(self), None, str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(InputError, match=r"m\.onnx cannot be replaced: Device or resource busy"):
        write(tmp_path, B)
    assert names(tmp_path) == A_FILES
    assert weights(tmp_path) == A


def test_data_that_another_model_names_stay(tmp_path: Path) -> None:
    write(tmp_path, A)
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "m.onnx").read_bytes())
    write(tmp_path, B)
    assert names(tmp_path) == sorted(["copy.onnx", *A_FILES, *B_FILES[1:]])
    (tmp_path / "copy.onnx").unlink()
    write(tmp_path, A)
    assert names(tmp_path) == A_FILES


def test_what_is_called_as_a_model_and_is_none_keeps_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "link.onnx").symlink_to("nowhere")
    write(tmp_path, A)
    write(tmp_path, B)
    assert [name for name in names(tmp_path) if name.startswith("m.")] == B_FILES


def test_a_converted_file_does_not_need_the_data_of_its_source(tmp_path: Path) -> None:
    write(tmp_path, A)
    (tmp_path / "m.ort").write_bytes((tmp_path / "m.onnx").read_bytes())  # with the names in it
    write(tmp_path, B)
    assert names(tmp_path) == [*B_FILES, "m.ort"]


def test_digits_in_the_name_of_a_model_are_not_those_of_its_files(tmp_path: Path) -> None:
    target = tmp_path / f"m.{'0' * 16}.onnx"
    for text in (A, B):
        data = content_name(target.name, text * 16, "data")
        with staged_folder(target, replaced=named) as stage:
            (stage / data).write_text(text)
            (stage / target.name).write_text(f"model, its weights stand in {data}")
    assert len(names(tmp_path)) == 2


def test_data_of_the_same_name_are_written_again(tmp_path: Path) -> None:
    write(tmp_path, A)
    (tmp_path / A_FILES[1]).write_text("damaged")
    write(tmp_path, A)
    assert weights(tmp_path) == A


def test_a_target_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    def race() -> None:
        with staged_folder(tmp_path / "m.onnx", force=False) as folder:
            (folder / "m.onnx").write_text("second")
            (tmp_path / "m.onnx").write_text("first")

    with pytest.raises(InputError, match="exists already"):
        race()
    assert (tmp_path / "m.onnx").read_text() == "first"


def test_two_writers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While files come into place the folder is locked, for other processes too."""
    held = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(target.name)
        finally:
            os.close(folder)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)

    def write_often(text: str) -> None:
        for _ in range(8):
            write(tmp_path, text)

    threads = [threading.Thread(target=write_often, args=(text,)) for text in (A, B)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 2 * 2 * 8
    assert names(tmp_path) in (A_FILES, B_FILES)
    assert weights(tmp_path) in (A, B)


def test_a_living_writer_keeps_its_stage(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "slow.onnx") as folder:
        (folder / "slow.onnx").write_text("half")
        write(tmp_path, A)
        assert folder.exists()
    assert names(tmp_path) == [*A_FILES, "slow.onnx"]


@pytest.mark.parametrize("marker", [None, "", "of another program\n"])
def test_a_folder_that_is_not_ours_stays(tmp_path: Path, marker: str | None) -> None:
    other = tmp_path / ".m.onnx.ab12cd_8"
    other.mkdir()
    if marker is not None:
        (other / MARKER).write_text(marker)
    write(tmp_path, A)
    assert other.exists()


@pytest.mark.parametrize(
    "line", ['"precious.npz"', '"../m.onnx.0123456789abcdef.data"', "17", '"m']
)
def test_a_marker_cannot_have_other_files_removed(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for path in (folder / "precious.npz", tmp_path / "m.onnx.0123456789abcdef.data"):
        path.write_text("precious")
    dead = folder / ".m.onnx.ab12cd_8"
    dead.mkdir()
    (dead / MARKER).write_text(f"{staging.FIRST_LINE}\n{line}\n")
    write(folder, A)
    assert not dead.exists()
    assert names(folder) == [*A_FILES, "precious.npz"]
    assert (tmp_path / "m.onnx.0123456789abcdef.data").exists()


def test_a_file_system_without_locks_is_written_and_not_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    dead = tmp_path / ".m.onnx.ab12cd_8"
    dead.mkdir()
    (dead / MARKER).write_text(f"{staging.FIRST_LINE}\n")
    write(tmp_path, A)
    assert weights(tmp_path) == A
    assert dead.exists()


def test_a_reader_looks_again_where_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(tmp_path, A)
    seen: list[Any] = []

    def read() -> str:
        (data,) = named(path)
        if not seen:
            write(tmp_path, B)  # which drops what the file named when it was read
        seen.append(data)
        if not (tmp_path / data).exists():
            raise InputError(f"{data} is missing")
        return (tmp_path / data).read_text()

    assert again_if_replaced(path, read) == B
    assert len(seen) == 2


def test_a_reader_looks_once_where_nothing_changed(tmp_path: Path) -> None:
    seen = []

    def read() -> None:
        seen.append(1)
        raise InputError("damaged")

    with pytest.raises(InputError):
        again_if_replaced(tmp_path / "m.onnx", read)
    assert len(seen) == 1
