"""What every command does with files it cannot use: exit 2, one line and a hint, nothing written."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said


TORCH_FREE = {
    "inspect": (),
    "reroll": ("-o", "out.onnx"),
    "quantize": ("-o", "out.onnx"),
    "convert": ("-o", "out.ort"),
    "prepare": ("-o", "out.onnx"),
    "profile": ("--runs=1", "--processes=1", "--html", "out.html"),
    "run": ("--input", "x.npz", "-o", "out.npz"),
    "unroll": ("-o", "out.onnx"),
    "to-generate": ("-o", "out.onnx"),
    "generate": ("--prompt=x",),
    "package": ("--for=python", "-o", "out.bundle"),
}
WRITERS = ["quantize", "convert", "prepare", "to-generate", "profile", "run", "unroll"]


def words_of(command: str, folder: Path, target: Path | None = None) -> list[str]:
    """Return a command's further words, its files in ``folder``, its target where it is named."""
    words = []
    for word in TORCH_FREE[command]:
        if word.startswith("out."):
            words.append(str((target or folder) / word))
        else:
            words.append(word if word.startswith("-") else str(folder / word))
    return words


def assert_refused(outcome: Said, words: str, code: int = 2) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert words in outcome.err
    lines = outcome.err.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2


def make_bad_model(kind: str, tiny: Path, external: Path) -> None:
    folder = tiny.parent
    bad = folder / "bad.onnx"
    if kind == "folder":
        bad.mkdir()
    elif kind == "empty":
        bad.write_bytes(b"")
    elif kind == "text":
        bad.write_text("This is not a model, it is a letter.\n")
    elif kind == "truncated":
        bad.write_bytes(tiny.read_bytes()[:20_000])
    elif kind in {"no data", "short data"}:
        shutil.copy(external, bad)
        data = folder / "external.onnx.data"
        if kind == "no data":
            data.unlink()
        else:
            data.write_bytes(data.read_bytes()[:1000])


@pytest.mark.parametrize("command", TORCH_FREE)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "does not exist"),
        ("folder", "is a folder"),
        ("empty", "bad.onnx"),
        ("text", "bad.onnx"),
        ("truncated", "bad.onnx"),
        ("no data", "external.onnx.data"),
        ("short data", "tensor"),
    ],
)
def test_a_bad_model(
    cli: Cli, tiny: Path, external: Path, ids: Path, kind: str, words: str, command: str
) -> None:
    folder = tiny.parent
    make_bad_model(kind, tiny, external)
    before = sorted(folder.rglob("*"))
    assert_refused(cli(command, folder / "bad.onnx", *words_of(command, folder)), words)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITERS)
def test_an_existing_target_is_refused_without_force(
    cli: Cli, tiny: Path, ids: Path, command: str
) -> None:
    words = words_of(command, tiny.parent)
    target = tiny.parent / words[-1]
    target.write_text("mine")
    assert_refused(cli(command, tiny, *words), "exists already")
    assert target.read_text() == "mine"
    assert cli(command, tiny, *words, "--force").code == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize("command", [*WRITERS, "package"])
def test_a_folder_that_does_not_exist(cli: Cli, tiny: Path, ids: Path, command: str) -> None:
    words = words_of(command, tiny.parent, tiny.parent / "nowhere")
    assert_refused(cli(command, tiny, *words), "does not exist")
    assert not (tiny.parent / "nowhere").exists()


@pytest.mark.parametrize("command", WRITERS)
def test_a_target_that_is_a_folder(cli: Cli, tiny: Path, ids: Path, command: str) -> None:
    words = words_of(command, tiny.parent)
    (tiny.parent / words[-1]).mkdir()
    assert_refused(cli(command, tiny, *words, "--force"), "is a folder")


@pytest.mark.parametrize("command", [*WRITERS, "package"])
def test_an_unwritable_folder(
    cli: Cli, tiny: Path, ids: Path, read_only: Path, command: str
) -> None:
    outcome = cli(command, tiny, *words_of(command, tiny.parent, read_only))
    assert_refused(outcome, "cannot be written")
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("command", ["quantize", "convert", "prepare", "run", "unroll", "package"])
def test_a_full_disk(cli: Cli, tiny: Path, ids: Path, small_disk: Path, command: str) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "taken").write_bytes(bytes(64 * 1024))
    outcome = cli(command, tiny, *words_of(command, tiny.parent, small_disk))
    assert_refused(outcome, "no space left")
    assert [path.name for path in small_disk.iterdir()] == ["taken"]


@pytest.mark.parametrize("command", ["profile", "run", "unroll"])
@pytest.mark.parametrize("loops", ["0", "-1", "two"])
def test_a_loop_count_below_one(
    cli: Cli, tiny_dynamic: Path, ids: Path, command: str, loops: str
) -> None:
    words = words_of(command, tiny_dynamic.parent)
    assert_refused(cli(command, tiny_dynamic, *words, "--loops", loops), "'--loops'")


@pytest.mark.parametrize("command", ["profile", "run", "unroll"])
def test_a_loop_count_that_is_fixed(cli: Cli, tiny: Path, ids: Path, command: str) -> None:
    outcome = cli(command, tiny, *words_of(command, tiny.parent), "--loops", "2")
    assert_refused(outcome, "3 iterations" if command == "unroll" else "3 loops")


@pytest.mark.parametrize("command", ["profile", "run"])
def test_a_provider_that_is_not_there(cli: Cli, tiny: Path, ids: Path, command: str) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    outcome = cli(command, tiny, *words_of(command, tiny.parent), "--provider", "cuda")
    assert_refused(outcome, "CUDAExecutionProvider", code=5)


def test_the_weights_of_a_source_are_never_written_over(cli: Cli, external: Path) -> None:
    data = external.with_name("external.onnx.data")
    before = data.read_bytes()
    moved = external.rename(external.with_name("float.onnx"))
    for words in (
        ("quantize", moved, "-o", external, "--force"),
        ("quantize", moved, "-o", data, "--force"),
        ("prepare", moved, "-o", external, "--force"),
        ("prepare", moved, "-o", data, "--force"),
        ("unroll", moved, "-o", external, "--force"),
        ("unroll", moved, "-o", data, "--force"),
    ):
        outcome = cli(*words)
        assert outcome.code == 2
        assert "is also a file of MODEL" in outcome.err
    assert data.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["quantize", "prepare", "unroll"])
def test_a_data_file_of_others_stays(command: str, cli: Cli, tiny: Path) -> None:
    other = tiny.with_name("out.onnx.data")
    other.write_text("precious")
    assert cli(command, tiny, "-o", tiny.with_name("out.onnx")).code == 0
    assert cli(command, tiny, "-o", tiny.with_name("x.ort")).code == 2
    assert other.read_text() == "precious"


def test_a_checkpoint_is_not_replaced_by_its_export(cli: Cli, tmp_path: Path) -> None:
    checkpoint = tmp_path / "m.pt"
    checkpoint.write_text("weights")
    outcome = cli("export", checkpoint, "-o", checkpoint, "--force")
    assert (outcome.code, checkpoint.read_text()) == (2, "weights")
    assert "is also a file of MODEL" in outcome.err


def test_a_prepared_file_is_not_converted(cli: Cli, tiny: Path) -> None:
    assert cli("prepare", tiny).code == 0
    outcome = cli("convert", tiny.with_suffix(".prepared.onnx"))
    assert outcome.code == 2
    assert "prepared for one device" in outcome.err


def test_a_seed_needs_noise(cli: Cli, tiny: Path, ids: Path) -> None:
    outcome = cli("run", tiny, "-i", ids, "--seed", 3)
    assert (outcome.code, "takes no noise" in outcome.err) == (2, True)


def test_more_positions_than_the_model_takes(cli: Cli, tiny: Path) -> None:
    path = tiny.with_name("long.npz")
    np.savez(path, input_ids=np.zeros((1, 40), np.int64))
    outcome = cli("run", tiny, "-i", path)
    assert outcome.code == 2
    assert "has 40 positions" in outcome.err
    assert "at most 16" in outcome.err


def test_a_loop_count_of_any_size_is_clamped(cli: Cli, tiny_dynamic: Path, ids: Path) -> None:
    outcome = cli("run", tiny_dynamic, "-i", ids, "--loops", 10**20, "--json")
    assert outcome.json()["loops"] == 3
