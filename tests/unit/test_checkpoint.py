"""model.pt: round trip, and every way in which a file can be wrong."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import loopedge
from loopedge.errors import InputError
from loopedge.model import checkpoint
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


@pytest.mark.slow
def test_a_configuration_that_asks_for_more_than_the_file_holds(
    saved: Path, tmp_path: Path
) -> None:
    whole = torch.load(saved, weights_only=True)
    many = {f"x{i}": torch.zeros(1) for i in range(300)}
    wide = {"d_model": 16384, "heads": 64}
    repeated = torch.zeros(1).expand(4096, 4096)
    for change, state, words in (
        ({"layers": 256}, {}, "asks for 256 layers, the file holds"),
        (wide | {"layers": 256}, many, "has shape .* the configuration asks for"),
        (wide, {}, "has shape .* the configuration asks for"),
        ({"vocab_size": 10**9}, {}, "has shape .* the configuration asks for"),
        ({"vocab_size": 10**30}, {}, "configuration|config"),
        ({"max_length": 10**6}, {}, "has shape .* the configuration asks for"),
        ({}, {"embedding.weight": repeated}, "a tensor repeats its values"),
    ):
        content = whole | {
            "config": whole["config"] | change,
            "state_dict": whole["state_dict"] | state,
        }
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(InputError, match=words):
            loopedge.load(tmp_path / "wrong.pt")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("state_dict", {"norm.weight": torch.eye(3).to_sparse()}, "is sparse"),
        ("state_dict", {"norm.weight": torch.empty(3, device="meta")}, "on the device meta"),
        ("state_dict", {"norm.weight": torch.zeros(3, dtype=torch.complex64)}, "is complex64"),
        (
            "state_dict",
            {"norm.weight": torch.zeros(16, dtype=torch.int64)},
            "torch.float32 is needed",
        ),
        ("state_dict", {"norm.weight": 3}, "is int, a tensor is needed"),
        ("state_dict", {3: torch.zeros(3)}, "no dictionary of tensors"),
        ("task", [1], "task is list, a dictionary is needed"),
        ("task", {"name": torch.zeros(3)}, "it holds a Tensor"),
        ("task", {"name": "\ud800"}, "half of a surrogate pair"),
        ("task", {1: 2}, "a key is not text"),
        ("companions", {"tokenizer.json": 3}, "is int, text is needed"),
        ("companions", "x", "companions is str, a dictionary is needed"),
        ("config", {"loops": 10**40}, "too many digits"),
        ("loopedge", [[]], "has checkpoint format list"),
    ],
    ids=range(14),
)
def test_entries_of_another_type(key: str, value: object, words: str, saved: Path) -> None:
    whole = torch.load(saved, weights_only=True)
    if key == "state_dict":
        value = {**whole["state_dict"], **value}  # type: ignore[dict-item]
    torch.save(whole | {key: value}, saved)
    with pytest.raises(InputError, match=words):
        loopedge.load(saved)


def test_one_list_in_many_places_of_a_task(saved: Path) -> None:
    whole = torch.load(saved, weights_only=True)
    value: list[object] = []
    for _ in range(60):
        value = [value, value]
    torch.save(whole | {"task": {"name": value}}, saved)
    with pytest.raises(InputError, match="task cannot be used"):
        loopedge.load(saved)


def test_a_compressed_file(saved: Path) -> None:
    with zipfile.ZipFile(saved) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    with pytest.raises(InputError, match="is compressed or encrypted"):
        loopedge.load(saved)


def test_a_defect_of_the_reader_itself_is_not_called_bad_input(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*arguments: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(checkpoint, "check_tensors", defect)
    with pytest.raises(RuntimeError, match="planted"):
        loopedge.load(saved)
