"""Text and pairs on the command line: from training to ``loopedge run --text``, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.runtime.session import Session

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Said

pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.long

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 4, "--batch-size", 4)
TEXT = "".join(f"line {n}: the loop runs the block {n % 7} times.\n" for n in range(300))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    lines = [{"input": f"ab{n}", "output": f"{n}ba"} for n in range(100)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models, exported: ``bytes.onnx``, ``tokens.onnx`` with its tokenizer, ``pairs.onnx``."""
    from loopedge.exporter.pipeline import export
    from loopedge.model.checkpoint import save
    from loopedge.model.transformer import LoopedTransformer
    from loopedge.tasks.pairs import PairsTask
    from loopedge.tasks.text import TextTask
    from loopedge.trainer.config import make_model_config

    folder = tmp_path_factory.mktemp("models")
    (folder / "corpus.txt").write_text(TEXT)
    lines = [json.dumps({"input": f"ab{n}", "output": f"{n}ba"}) + "\n" for n in range(100)]
    (folder / "pairs.jsonl").write_text("".join(lines))
    tasks: dict[str, Any] = {
        "bytes": TextTask.from_path(folder / "corpus.txt", context=24),
        "tokens": TextTask.from_path(folder / "corpus.txt", context=24, train_tokenizer=280),
        "pairs": PairsTask.from_jsonl(folder / "pairs.jsonl", length=12),
    }
    for name, task in tasks.items():
        model = LoopedTransformer(make_model_config(task, d_model=16, heads=2, loops=2))
        source = folder / f"{name}.pt"
        save(model, source, task=task.describe(), companions=task.companions())
        export(source, folder / f"{name}.onnx")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy of the models that a test may change."""
    return Path(shutil.copytree(models, tmp_path / "models"))


def refused(outcome: Said, words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert words in outcome.err
    first, *hints = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_text_trains(cli: Cli, corpus: Path) -> None:
    target = corpus.parent / "model.pt"
    outcome = cli("train", "text", corpus, "--context", 16, *SMALL, "-o", target, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert set(found["test"]) == {"perplexity", "bits_per_byte", "accuracy"}
    assert set(found["baselines"]) == {"unigram", "bigram"}
    assert found["metric"] == "perplexity"


def test_pairs_train_and_what_was_left_out_is_reported(cli: Cli, pairs: Path) -> None:
    with pairs.open("a") as lines:
        lines.write(json.dumps({"input": "x" * 40, "output": "y"}) + "\n")
    words = ("train", "pairs", pairs, "--length", 12, *SMALL, "-o", pairs.parent / "model.pt")
    refused(cli(*words), "line 101 has 42 tokens")
    outcome = cli(*words, "--skip-long", "--json")
    assert outcome.code == 0, outcome.err
    assert "pairs longer than --length 12 were left out: 1" in outcome.err
    assert set(outcome.json()["test"]) == {"sequence_accuracy", "accuracy", "perplexity"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("text", "none.txt"), "none.txt does not exist"),
        (("text", "corpus.txt", "--context", 10_000), "needs 10001"),
        (("text", "corpus.txt", "--validation", "corpus.txt"), "--test is missing"),
        (("text", "corpus.txt", "--tokenizer", "corpus.txt"), "is not a tokenizer"),
        (("text", "corpus.txt", "--train-tokenizer", 9), "allowed is 257"),
        (("text", "latin.txt"), "latin.txt is not UTF-8 text: byte 2"),
        (("text", "empty.txt"), "is empty"),
        (("pairs", "corpus.txt"), "corpus.txt: line 1 is not JSON"),
        (("pairs", "pairs.jsonl", "--source", "src"), "line 1 lacks the key 'src'"),
    ],
)
def test_bad_data_is_refused_with_nothing_written(
    cli: Cli, corpus: Path, pairs: Path, words: tuple[Any, ...], said: str
) -> None:
    folder = corpus.parent
    (folder / "latin.txt").write_bytes("Grö".encode("latin-1") + b"\xdfe " + b"x" * 900)
    (folder / "empty.txt").touch()
    before = sorted(folder.iterdir())
    placed = [folder / word if (folder / str(word)).suffix else word for word in words]
    refused(cli("train", *placed, *SMALL, "-o", folder / "model.pt"), said)
    assert sorted(folder.iterdir()) == before


def test_without_the_library_the_extra_is_named(
    cli: Cli, corpus: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    target = corpus.parent / "model.pt"
    words = ("train", "text", corpus, "--context", 16, *SMALL, "-o", target)
    refused(cli(*words, "--train-tokenizer", 300), "needs the extra 'text'")
    refused(cli("run", models / "tokens.onnx", "--text", "the"), "needs the extra 'text'")
    assert cli("run", models / "bytes.onnx", "--text", "the").code == 0


def test_a_full_disk_of_temporary_files(
    cli: Cli, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has 32 KiB, the ids take more."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    (tmp_path / "long.txt").write_text("".join(f"{n} " for n in range(20_000)))
    words = ("--context", 16, "--train-tokenizer", 257, *SMALL, "-o", tmp_path / "model.pt")
    outcome = cli("train", "text", tmp_path / "long.txt", *words)
    refused(outcome, "no space left for the encoded text")
    assert list(small_disk.iterdir()) == []
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("name", "tokens"), [("bytes", {8}), ("tokens", set(range(2, 7))), ("pairs", {9})]
)
def test_run_on_text(cli: Cli, models: Path, name: str, tokens: set[int]) -> None:
    outcome = cli("run", models / f"{name}.onnx", "--text", "the loop", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert (found["text"], found["completion"]) == ("the loop", None)
    assert found["tokens"] in tokens
    likely = found["next_tokens"]
    shares = [item["probability"] for item in likely]
    assert len(likely) == 5
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    shown = cli("run", models / f"{name}.onnx", "--text", "the loop", "--new-tokens", 3)
    assert "next token" in shown.out
    assert "completion" in shown.out


def test_the_completion_is_the_most_likely_token_each_time(cli: Cli, models: Path) -> None:
    session, ids = Session(models / "bytes.onnx"), list(b"the ")
    for _ in range(4):
        ids.append(int(session.run({"input_ids": np.array([ids])})["logits"][0, -1].argmax()))
    found = cli("run", models / "bytes.onnx", "--text", "the ", "--new-tokens", 4, "--json").json()
    assert found["completion"] == bytes(ids[4:]).decode(errors="replace")
    assert found["next_tokens"][0]["id"] == ids[4]
    assert found["new_tokens"] == 4


def test_it_ends_where_the_model_does(cli: Cli, models: Path) -> None:
    outcome = cli("run", models / "bytes.onnx", "--text", "x" * 20, "--new-tokens", 50, "--json")
    assert outcome.json()["new_tokens"] == 5  # 24 positions are read, the last tells one more
    assert "ended after 5 of 50 new tokens: the model takes at most 24 positions" in outcome.err


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("bytes", ("--text", "x" * 25), "the text has 25 tokens"),
        ("bytes", ("--text", ""), "the text is empty"),
        ("bytes", ("--text", "a", "--input", "x.npz"), "both --input and --text"),
        ("bytes", (), "neither --input nor --text"),
        ("bytes", ("--text", "a", "--output", "y.npz"), "--output goes with --input"),
        ("bytes", ("--text", "a", "--seed", 1), "--seed goes with --input"),
        ("bytes", ("--input", "x.npz", "--new-tokens", 2), "--new-tokens goes with a text"),
        ("pairs", ("--text", "x" * 12), "the text has 13 tokens"),
    ],
)
def test_run_refuses(cli: Cli, models: Path, name: str, words: tuple[Any, ...], said: str) -> None:
    refused(cli("run", models / f"{name}.onnx", *words), said)


def test_a_model_that_knows_no_text(cli: Cli, tiny: Path) -> None:
    refused(cli("run", tiny, "--text", "a"), "it takes no text")


def tokenizer_of(folder: Path) -> Path:
    """Return the tokenizer beside ``tokens.onnx``."""
    (file,) = folder.glob("tokens.*.tokenizer.json")
    return file


def test_a_tokenizer_that_is_missing_or_another(cli: Cli, folder: Path) -> None:
    model, beside = folder / "tokens.onnx", tokenizer_of(folder)
    assert cli("inspect", model, "--json").json()["companions"][0]["state"] == "present"
    assert f"{beside.name}  present" in cli("inspect", model).out
    beside.write_text(beside.read_text() + " ")
    refused(cli("run", model, "--text", "the"), "its sha256 differs")
    assert cli("inspect", model, "--json").json()["companions"][0]["state"] == "changed"
    beside.unlink()
    refused(cli("run", model, "--text", "the"), "which is missing")
    assert "missing" in cli("inspect", model).out
    refused(cli("convert", model, "-o", folder.parent / "m.ort"), "which is missing")
    assert not (folder.parent / "m.ort").exists()


def test_export_writes_the_tokenizer_or_nothing(cli: Cli, folder: Path, tmp_path: Path) -> None:
    beside = tmp_path / tokenizer_of(folder).name.replace("tokens.", "m.", 1)
    beside.mkdir()
    refused(cli("export", folder / "tokens.pt", "-o", tmp_path / "m.onnx"), "is a folder")
    assert not (tmp_path / "m.onnx").exists()
    beside.rmdir()
    outcome = cli("export", folder / "tokens.pt", "-o", tmp_path / "m.onnx", "--json")
    assert outcome.code == 0, outcome.err
    names = [Path(file["path"]).name for file in outcome.json()["files"]]
    assert names == ["m.onnx", beside.name]
    assert beside.read_bytes() == tokenizer_of(folder).read_bytes()
    assert cli("run", tmp_path / "m.onnx", "--text", "the").code == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("quantize", "--reduce-range"), "q.onnx"),  # the same integers on every processor
        (("convert",), "q.ort"),
        (("prepare",), "q.onnx"),
    ],
)
def test_the_tokenizer_travels_into_another_folder(
    cli: Cli, folder: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    target = tmp_path / "there" / name
    target.parent.mkdir()
    beside = target.parent / tokenizer_of(folder).name
    outcome = cli(*words, folder / "tokens.onnx", "-o", target, "--json")
    assert outcome.code == 0, outcome.err
    assert beside.name in [Path(file["path"]).name for file in outcome.json()["files"]]
    assert beside.read_bytes() == tokenizer_of(folder).read_bytes()
    assert cli("run", target, "--text", "the loop").code == 0


def test_export_in_ort_format_has_its_tokenizer(cli: Cli, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.ort"
    outcome = cli("export", folder / "tokens.pt", "--format", "ort", "-o", target)
    assert outcome.code == 0, outcome.err
    assert len(list(tmp_path.glob("m.*.tokenizer.json"))) == 1
    assert cli("run", target, "--text", "the loop").code == 0


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("bytes", "none.txt", "does not exist"),
        ("bytes", "short.txt", "needs 25"),
        ("pairs", "corpus.txt", "line 1 is not JSON"),
        ("tiny", "corpus.txt", "does not say what it was trained on"),
    ],
)
def test_quantize_refuses_other_data(
    cli: Cli, folder: Path, tiny: Path, name: str, data: str, said: str
) -> None:
    (folder / "short.txt").write_text("short")
    model = tiny if name == "tiny" else folder / f"{name}.onnx"
    refused(cli("quantize", model, "--data", folder / data), said)


def test_a_generated_task_reads_no_data(cli: Cli, folder: Path) -> None:
    from loopedge.exporter.pipeline import export
    from loopedge.model.checkpoint import save
    from loopedge.model.transformer import LoopedTransformer
    from loopedge.tasks.generated.sorting import SortingTask
    from loopedge.trainer.config import make_model_config

    task = SortingTask(length=3, vocab=5)
    model = LoopedTransformer(make_model_config(task, d_model=16, heads=2, loops=2))
    save(model, folder / "sorting.pt", task=task.describe())
    export(folder / "sorting.pt", folder / "sorting.onnx")
    words = ("quantize", folder / "sorting.onnx", "--data", folder / "corpus.txt")
    refused(cli(*words), "the task sorting is generated: it does not read")


OPEN = ("--d-model", 32, "--heads", 2, "--loops", 2, "--gate-init", 1, "--init-std", 0.09)
"""A small model and a start from which it learns in a few hundred steps, with every seed that was tried."""


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--train-tokenizer", 300)])
def test_text_from_training_to_the_device(
    cli: Cli, corpus: Path, tmp_path: Path, options: tuple[Any, ...]
) -> None:
    size = (*OPEN, "--steps", 300, "--batch-size", 16)
    words = ("--context", 24, *size, *options, "-o", tmp_path / "m.pt", "--json")
    outcome = cli("train", "text", corpus, *words)
    assert outcome.code == 0, outcome.err
    trained = outcome.json()
    for baseline in trained["baselines"].values():
        assert trained["test"]["perplexity"] < baseline["perplexity"]
    assert cli("export", tmp_path / "m.pt").code == 0
    quantize = ("quantize", tmp_path / "m.onnx", "--data", corpus, "--scheme", "static")
    options = (
        "--max-drop",
        0.5,
        "--reduce-range",
        "--json",
    )  # the same integers on every processor
    outcome = cli(*quantize, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.json()["budget"]["metric"] == "perplexity"
    words = ("--text", "line 12: the loop", "--new-tokens", 6, "--json")
    exact, given = (
        cli("run", tmp_path / name, *words).json() for name in ("m.onnx", "m.int8.onnx")
    )
    assert given["new_tokens"] == exact["new_tokens"] == 6
    shares = {item["id"]: item["probability"] for item in given["next_tokens"]}
    likely = exact["next_tokens"][0]
    assert likely["probability"] > 0.1
    assert shares[likely["id"]] == pytest.approx(likely["probability"], abs=0.05)


@pytest.mark.long
def test_pairs_from_training_to_the_device(cli: Cli, tmp_path: Path) -> None:
    """A tiny task of capital letters is learned, and survives int8."""
    import random

    letters = random.Random(0)
    words = {"".join(letters.choices("abcd", k=letters.randint(1, 5))) for _ in range(3000)}
    data = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"input": w, "output": w.upper()}) + "\n" for w in sorted(words)]
    data.write_text("".join(lines))
    size = (*OPEN, "--steps", 400, "--batch-size", 32)
    outcome = cli("train", "pairs", data, "--length", 11, *size, "-o", tmp_path / "m.pt", "--json")
    assert outcome.code == 0, outcome.err
    trained = outcome.json()
    assert trained["test"]["sequence_accuracy"] > 0.5
    assert trained["test"]["accuracy"] > 2 * trained["baselines"]["unigram"]["accuracy"]
    assert cli("export", tmp_path / "m.pt").code == 0
    outcome = cli("quantize", tmp_path / "m.onnx", "--data", data, "--reduce-range")
    assert outcome.code == 0, outcome.err
    right = 0
    for word in ("ab", "cab", "dd", "bca"):
        found = cli("run", tmp_path / "m.int8.onnx", "--text", word, "--new-tokens", 8, "--json")
        right += found.json()["completion"] == word.upper()
    assert right >= 3
