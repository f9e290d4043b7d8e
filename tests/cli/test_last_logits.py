"""A language model exported for generation: the logits of the last position alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytestmark = pytest.mark.slow

WORDS = ("--text", "the ", "--new-tokens", 4, "--json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of bytes, and the corpus of its task beside it."""
    from loopedge.model.checkpoint import save
    from loopedge.model.transformer import LoopedTransformer
    from loopedge.tasks.text import TextTask
    from loopedge.trainer.config import make_model_config

    folder = tmp_path_factory.mktemp("lm")
    (folder / "corpus.txt").write_text(
        "".join(f"line {n}: the loop, the loop\n" for n in range(60))
    )
    task = TextTask.from_path(folder / "corpus.txt", context=24)
    model = LoopedTransformer(make_model_config(task, d_model=32, heads=2, loops=3, gate_init=0.5))
    save(model, folder / "lm.pt", task=task.describe(), companions=task.companions())
    return folder / "lm.pt"


def test_it_generates_what_the_model_with_all_logits_does(
    cli: Cli, checkpoint: Path, tmp_path: Path
) -> None:
    whole, last, int8 = (tmp_path / name for name in ("all.onnx", "last.onnx", "last.int8.onnx"))
    cli("export", checkpoint, "-o", whole)
    result = cli("export", checkpoint, "-o", last, "--logits", "last", "--json").json()
    assert result["logits"] == "last"
    assert result["last_rows"] == {
        "applied": True,
        "positions": "-1",
        "narrowed": 5,
        "products": 7,
        "reason": None,
    }
    expected = cli("run", whole, *WORDS).json()
    found = cli("run", last, *WORDS).json()
    assert found["completion"] == expected["completion"]
    assert [item["id"] for item in found["next_tokens"]] == [
        item["id"] for item in expected["next_tokens"]
    ]
    assert found["outputs"][0]["shape"][:2] == [1, 1]

    corpus = checkpoint.parent / "corpus.txt"
    words = ("--data", corpus, "--scheme", "static", "--reduce-range", "--json")
    quantized = cli("quantize", last, "-o", int8, *words)
    assert quantized.json()["last_rows"]["applied"]
    assert len(cli("run", int8, *WORDS).json()["completion"]) > 0
    inspected = cli("inspect", int8)
    assert "computes positions -1 alone" in inspected.out
    result = cli("inspect", int8, "--json").json()
    assert result["last_rows"] == "-1"
    assert result["metadata"]["logits"] == "last"


def test_it_can_be_switched_off_and_says_why_it_is_not_on(
    cli: Cli, checkpoint: Path, tmp_path: Path
) -> None:
    off = cli(
        "export",
        checkpoint,
        "-o",
        tmp_path / "off.onnx",
        "--logits",
        "last",
        "--no-last-rows",
        "--json",
    )
    assert off.json()["last_rows"]["reason"] == "it was switched off"
    asked = cli("export", checkpoint, "-o", tmp_path / "all.onnx", "--last-rows")
    assert "the last iteration computes all positions: the coda reads all positions" in asked.err


def test_a_profile_has_twins_of_the_same_rows(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    cli("export", checkpoint, "-o", tmp_path / "last.onnx", "--logits", "last", "--quiet")
    result = cli("profile", tmp_path / "last.onnx", "--untied", "--runs", 1, "--json").json()
    assert [run["twin"] for run in result["runs"]] == [None, "untied"]
    assert result["runs"][1]["file_bytes"] > result["runs"][0]["file_bytes"]
