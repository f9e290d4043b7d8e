"""model.pt: round trip, and every way in which a file can be wrong."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import loopedge
from loopedge.errors import InputError
from loopedge.model.checkpoint import load_checkpoint


@pytest.fixture
def model() -> loopedge.LoopedTransformer:
    torch.manual_seed(0)
    return loopedge.LoopedTransformer(loopedge.LoopedConfig(d_model=16, heads=2, vocab_size=11))


@pytest.fixture
def saved(model: loopedge.LoopedTransformer, tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    loopedge.save(model, path, task={"name": "sorting"})
    return path


def test_round_trip(model: loopedge.LoopedTransformer, saved: Path) -> None:
    again = loopedge.load(saved)
    assert again.config == model.config
    assert not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert load_checkpoint(saved)["task"] == {"name": "sorting"}


def test_an_existing_file_is_refused_without_force(
    model: loopedge.LoopedTransformer, saved: Path
) -> None:
    before = saved.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        loopedge.save(model, saved)
    assert saved.read_bytes() == before
    loopedge.save(model, saved, force=True)


class Hostile:
    """Pickles to a call that writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_pickled_code_never_runs(container: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    content = {"loopedge": 1, "config": {}, "state_dict": {"x": Hostile(trace)}}
    if container == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError):
        loopedge.load(path)
    assert not trace.exists()


def test_what_is_wrong_is_named(saved: Path, tmp_path: Path) -> None:
    whole = torch.load(saved, weights_only=True)
    state, config = whole["state_dict"], whole["config"]
    less = {name: value for name, value in state.items() if name != "norm.weight"}
    without_config = {key: value for key, value in whole.items() if key != "config"}
    for content, words in (
        (whole | {"loopedge": 99}, "format 99"),
        (without_config, "lacks the keys config"),
        (whole | {"state_dict": less}, r"norm\.weight is missing"),
        (whole | {"state_dict": state | {"norm.weight": torch.zeros(3)}}, r"has shape \(3,\)"),
        (whole | {"state_dict": state | {"extra": torch.zeros(1)}}, "unknown tensor extra"),
        (whole | {"config": config | {"heads": 3}}, "not a multiple"),
    ):
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(InputError, match=words):
            loopedge.load(tmp_path / "wrong.pt")


def test_files_that_are_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(saved.read_bytes()[:-100])
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(2)}, foreign)
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    for path, words in (
        (tmp_path / "missing.pt", "does not exist"),
        (tmp_path, "is a folder"),
        (truncated, "truncated|damaged"),
        (foreign, "not a loopedge checkpoint"),
        (text, "not a PyTorch checkpoint"),
    ):
        with pytest.raises(InputError, match=words):
            loopedge.load(path)
