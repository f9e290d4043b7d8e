"""The command in process; what the exporter computes is held by tests/parity."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

import loopedge
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


KEYS = {
    "files",
    "form",
    "loops",
    "max_abs_error",
    "max_rel_error",
    "opset",
    "path",
    "seconds",
    "tied_weights",
    "verified",
    "weight_bytes",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "m.pt"
    config = LoopedConfig(d_model=8, heads=2, loops=2, vocab_size=11, max_length=8)
    loopedge.save(LoopedTransformer(config), path)
    return path


@pytest.mark.slow
def test_json_holds_the_documented_keys(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    outcome = cli("export", checkpoint, "--json")
    assert outcome.code == 0
    found = outcome.json()
    assert set(found) >= KEYS
    assert set(found["seconds"]) == {"capture", "assemble", "write", "verify"}
    assert found["path"] == str(tmp_path / "m.onnx")  # beside the checkpoint
    assert (found["form"], found["loops"], found["opset"]) == ("loop", 2, 23)
    assert found["verified"] is True
    assert found["max_rel_error"] <= 1e-4


@pytest.mark.slow
def test_every_flag_reaches_the_artifact(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "u.onnx"
    flags = ["--form", "unrolled", "--loops", "3", "--opset", "20", "--padding", "--quiet"]
    outcome = cli("export", checkpoint, "-o", target, *flags)
    assert (outcome.code, outcome.out) == (0, f"{target}\n")
    found = cli("inspect", target, "--json").json()
    assert (found["form"], found["loops"], found["opset"]) == ("unrolled", 3, 20)
    assert found["trained_loops"] == 2
    assert [port["name"] for port in found["inputs"]] == ["input_ids", "attention_mask"]


@pytest.mark.slow
def test_people_read_notes_on_stderr_and_facts_on_stdout(
    cli: Cli, checkpoint: Path, tmp_path: Path
) -> None:
    outcome = cli("export", checkpoint, "--loops", "4", "--dynamic-loops")
    assert outcome.code == 0
    assert "trained with 2" in outcome.err
    assert "against PyTorch" in outcome.out
    found = cli("inspect", tmp_path / "m.onnx", "--json").json()
    assert (found["loops"], found["dynamic_loops"]) == (4, True)


class Payload:
    """Pickles as a call: what a hostile checkpoint holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of the checkpoint ran')",))


def write_bad_checkpoints(folder: Path, checkpoint: Path) -> None:
    import torch

    whole = checkpoint.read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("no checkpoint")
    (folder / "code.pt").write_bytes(pickle.dumps(Payload()))
    torch.save({"loopedge": 1, "config": Payload(), "state_dict": {}}, folder / "hidden.pt")
    torch.save({"model": torch.zeros(3)}, folder / "foreign.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"loopedge": 99, "config": {}, "state_dict": {}}, folder / "newer.pt")
    torch.save({"loopedge": 1, "config": {}}, folder / "keys.pt")
    stored = torch.load(checkpoint, weights_only=True)
    name = next(iter(stored["state_dict"]))
    torch.save(
        stored | {"state_dict": {**stored["state_dict"], name: torch.zeros(1)}}, folder / "shape.pt"
    )
    torch.save(stored | {"config": {**stored["config"], "loops": 0}}, folder / "config.pt")
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.pt", "does not exist"),
        ("folder.pt", "holds no config.json"),
        ("truncated.pt", "truncated"),
        ("empty.pt", "is not a PyTorch checkpoint"),
        ("text.pt", "is not a PyTorch checkpoint"),
        ("code.pt", "code"),
        ("hidden.pt", "holds pickled code, which is never run"),
        ("foreign.pt", "no key 'loopedge'"),
        ("list.pt", "is not a loopedge checkpoint"),
        ("newer.pt", "checkpoint format 99"),
        ("keys.pt", "state_dict"),
        ("shape.pt", "has shape (1,)"),
        ("config.pt", "loops"),
        ("zip.pt", "is not a PyTorch checkpoint"),
    ],
)
def test_bad_checkpoints_are_reported_in_one_line(
    cli: Cli, checkpoint: Path, tmp_path: Path, name: str, words: str
) -> None:
    write_bad_checkpoints(tmp_path, checkpoint)
    (tmp_path / "folder.pt").mkdir()
    before = sorted(tmp_path.iterdir())
    outcome = cli("export", tmp_path / name)
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--loops", "0"],
        ["--loops", "-3"],
        ["--loops", "many"],
        ["--opset", "3"],
        ["--form", "spiral"],
    ],
)
def test_bad_options_exit_2(cli: Cli, checkpoint: Path, tmp_path: Path, flags: list[str]) -> None:
    outcome = cli("export", checkpoint, *flags)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == [checkpoint]
