"""Paths that are empty, no text, or hold control characters: exit 2 with one line, or they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import loopedge
from loopedge.errors import InputError
from loopedge.inference.run import run_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said

NO_TEXT = "b\udcff"
INPUTS = [
    "inspect {}",
    "quantize {}",
    "quantize m.onnx --data {}",
    "quantize m.onnx --ranges-file {}",
    "convert {}",
    "prepare {}",
    "unroll {}",
    "profile {}",
    "profile m.onnx --against {}",
    "profile m.onnx --input {}",
    "compare a.json {}",
    "run {} -i x.npz",
    "run m.onnx -i {}",
    "generate {} -p x",
    "export {}",
    "export package:make --weights {}",
    "train text {}",
    "train text t.txt --tokenizer {}",
    "train sorting --teacher {}",
    "train series {} --target y --context 2 --horizon 1",
    "pilot pairs {}",
]
OUTPUTS = [
    "quantize m.onnx -o {}",
    "quantize m.onnx --data x.npz --save-ranges {}",
    "convert m.onnx -o {}",
    "prepare m.onnx -o {}",
    "unroll m.onnx -o {}",
    "profile m.onnx --html {}",
    "run m.onnx -i x.npz -o {}",
    "export m.pt -o {}",
    "train sorting -o {}",
    "train sorting --tensorboard {}",
    "pilot sorting -o {}",
    "pilot sorting --html {}",
]


def assert_one_line(outcome: Said) -> None:
    assert outcome.code == 2, outcome.err
    first, *more = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("hint: ") for line in more)
    assert len(more) <= 1


def spelled(words: str, name: str) -> list[str]:
    return [name if word == "{}" else word for word in words.split()]


@pytest.mark.parametrize("words", [*INPUTS, *OUTPUTS])
def test_an_empty_path_is_refused(cli: Cli, words: str) -> None:
    outcome = cli(*spelled(words, ""))
    assert_one_line(outcome)
    if words != "export {}":  # any text names a model: a package, a folder
        assert "it is empty, a path is needed" in outcome.err


def test_an_empty_path_behind_a_sign_of_equality_is_one_too(cli: Cli) -> None:
    outcome = cli("quantize", "m.onnx", "--output=")
    assert_one_line(outcome)
    assert "Invalid value for '--output': it is empty" in outcome.err


def test_the_current_folder_and_an_empty_text_are_no_empty_paths(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert "takes no text" in cli("run", tiny, "--text", "").err
    assert ". is a folder" in cli("quantize", tiny, "-o", ".").err


@pytest.mark.parametrize("name", [NO_TEXT, f"{NO_TEXT}.onnx"])
@pytest.mark.parametrize(
    "words", [*INPUTS, *OUTPUTS, "run m.onnx --text {}", "generate m.onnx -p {}"]
)
def test_a_word_that_is_no_text_is_refused(cli: Cli, words: str, name: str) -> None:
    outcome = cli(*spelled(words, name))
    assert_one_line(outcome)
    assert r"'b\udcff" in outcome.err
    assert "is not text in this locale's encoding" in outcome.err


@pytest.mark.parametrize("words", [*INPUTS, *OUTPUTS])
def test_a_word_with_a_nul_is_refused(cli: Cli, words: str) -> None:
    assert_one_line(cli(*spelled(words, "a\0b")))


@pytest.mark.parametrize("name", [".", "/"])
@pytest.mark.parametrize("command", ["quantize", "convert", "prepare", "unroll"])
def test_a_folder_without_a_name_is_no_target(
    cli: Cli, tiny: Path, command: str, name: str
) -> None:
    outcome = cli(command, tiny, "-o", name, "--force")
    assert_one_line(outcome)
    assert "is a folder, a file name is needed" in outcome.err


@pytest.mark.parametrize(
    "words", ["quantize {m} -o q\nq.onnx", "convert {m} -o q\nq.ort", "prepare {m} -o q\nq.onnx"]
)
def test_a_control_character_in_a_target_is_refused(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tiny.parent)
    outcome = cli(*words.replace("{m}", str(tiny)).split(" "))
    assert_one_line(outcome)
    assert r"--output 'q\nq." in outcome.err


def test_a_control_character_in_an_input_works(cli: Cli, tiny: Path, ids: Path) -> None:
    model, arrays = tiny.rename(tiny.with_name("m\nm.onnx")), ids.rename(ids.with_name("x\nx.npz"))
    assert cli("run", model, "-i", arrays, "-o", tiny.with_name("out.npz")).code == 0
    assert cli("quantize", model, "-o", tiny.with_name("q.onnx")).code == 0


@pytest.mark.parametrize("name", ["", NO_TEXT, "a\0b", "a\nb"])
def test_the_verbs_of_python_refuse_them_too(tiny: Path, ids: Path, name: str) -> None:
    for call in (
        lambda: loopedge.quantize(tiny, name),
        lambda: loopedge.prepare(tiny, name),
        lambda: loopedge.convert(tiny, name),
        lambda: loopedge.unroll(tiny, name),
        lambda: run_file(tiny, ids, f"{name}.npz" if name else ""),
    ):
        with pytest.raises(InputError):
            call()
