"""``loopedge quantize --scheme auto`` and ``--recipe``: what people see, the JSON, exit codes."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console, Group

from loopedge.quantizer.choice.result import Candidate, ChoiceResult
from loopedge_cli.choice_view import choice_lists

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

FEW = ("--method", "mse", "--ranges", "per-iteration", "--no-smoothing", "--threads", 1, "--force")
"""Three candidates."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(0, 48, (40, 9)))
    return tmp_path / "x.npz"


@pytest.mark.slow
def test_what_is_chosen_is_said_and_repeated(
    cli: "Cli", tiny: Path, data: Path, tmp_path: Path
) -> None:
    found = cli("quantize", tiny, "--data", data, *FEW, "-o", tmp_path / "a.onnx", "--json")
    assert found.code == 0, found.err
    told = found.json()
    choice = told["choice"]
    assert choice["reason"].startswith(choice["chosen"])
    assert (choice["source"], choice["samples"]) == ("data", 10)
    schemes = {item["scheme"] for item in choice["candidates"]}
    assert schemes == {"static", "dynamic", "weight-int8"}
    assert [item["verdict"] for item in choice["candidates"]].count("chosen") == 1
    assert told["scheme"] in schemes
    words = ("quantize", tiny, "--recipe", tmp_path / "a.onnx", "--data", data, "--threads", 1)
    again = cli(*words, "-o", tmp_path / "b.onnx", "--json")
    assert again.code == 0, again.err
    assert again.json()["choice"] is None
    assert again.json()["scheme"] == told["scheme"]
    held = cli("inspect", tmp_path / "b.onnx", "--json").json()["metadata"]["quantization"]
    assert held["recipe"]["scheme"] == told["scheme"]


@pytest.mark.slow
def test_the_view_shows_all_candidates_and_why(cli: "Cli", tiny: Path, data: Path) -> None:
    shown = cli("quantize", tiny, "--data", data, *FEW, "--ops", "standard").out
    assert "candidates, on 10 samples of the data" in shown
    assert "static, per-iteration, mse" in shown
    assert "dynamic" in shown
    assert "not tried" in shown
    assert "it has no form with --ops" in shown
    assert "chosen" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--max-bytes", "1KiB"), 4, "the nearest, "),
        (("--max-bytes", "large"), 2, "--max-bytes is large"),
        (("--scheme", "static", "--min-speed-up", "2"), 2, "--min-speed-up is for"),
        (("--budget", "soon"), 2, "--budget is soon"),
        (("--recipe", "tiny.onnx", "--method", "mse"), 2, "--method is what --recipe says, too"),
        (("--scheme", "auto", "--ranges-file", "r.json"), 2, "finds the ranges"),
        (("--keep", "none"), 2, "there is no linear none"),
    ],
)
def test_what_cannot_be_met_says_so_in_one_line(
    words: tuple[str, ...], code: int, said: str, cli: "Cli", tiny: Path, data: Path, tmp_path: Path
) -> None:
    few = FEW if code == 4 else ("--threads", 1)
    outcome = cli("quantize", tiny, "--data", data, *few, *words, "-o", tmp_path / "q.onnx")
    assert outcome.code == code, outcome.err
    assert said in outcome.err.splitlines()[0]
    assert not (tmp_path / "q.onnx").exists()


def test_a_narrow_terminal_shows_every_character() -> None:
    fields: dict[str, Any] = {"scheme": "static", "min_sqnr_db": 15.0, "loss": 0.0, "samples": 9}
    names = ("static, per-iteration, minmax, smoothed", "dynamic")
    candidates = [
        Candidate(
            name=f"{name} + embedding.weight float",
            sqnr_db=41.25,
            score=0.98765,
            bytes=123_456,
            time_ratio=0.873,
            steady=name == "dynamic",
            verdict="slower, 1.29 times the fastest",
            **fields,
        )
        for name in names
    ]
    result = ChoiceResult(
        chosen=candidates[0].name,
        reason="of a test",
        source="validation",
        samples=9,
        metric="sequence_accuracy",
        float_score=0.99,
        candidates=candidates,
        left_out=["weight-int8: it has no form with --ops"],
        notes=[],
        seconds=1.0,
    )

    def shown(width: int) -> list[str]:
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(Group(*choice_lists(result.to_json())))
        return sorted("".join(console.export_text().split()))

    assert shown(80) == shown(400)
