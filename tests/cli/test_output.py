from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import typer

from loopedge.errors import InputError
from loopedge_cli.output import Output, sink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@dataclass
class Fake:
    values: dict[str, Any] = field(default_factory=lambda: {"path": "y", "db": math.inf})

    def to_json(self) -> dict[str, Any]:
        return self.values


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        (Output(), "seen\n"),
        (Output(quiet=True), "y\n"),
        (Output(json=True, quiet=True), '{\n  "path": "y",\n  "db": null\n}\n'),
    ],
    ids=["people", "quiet", "json"],
)
def test_the_three_modes(capsys: pytest.CaptureFixture[str], output: Output, printed: str) -> None:
    output.result(Fake(), lambda result: "seen", written="y")
    output.note("by the way")
    streams = capsys.readouterr()
    assert streams.out == printed
    assert streams.err == ("" if output.quiet else "by the way\n")


def test_json_is_strict_at_every_depth(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": [1.5, math.nan, {"b": -math.inf}], "c": (True, None, "NaN")}
    Output(json=True).result(Fake(values), lambda result: "")
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"a": [1.5, None, {"b": None}], "c": [True, None, "NaN"]}


def test_progress_is_drawn_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    assert not output.interactive
    with output.status("busy"), output.progress("steps", 3) as update:
        update(1, "loss 0.5")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert not Output(quiet=True).interactive
    with Output().progress("steps", 3) as update:
        update(3, "loss 0.5")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "steps" in streams.err
    assert "3/3" in streams.err


def test_an_exit_passes_and_an_error_becomes_one() -> None:
    with pytest.raises(typer.Exit) as caught, sink():
        raise typer.Exit(7)
    assert caught.value.exit_code == 7
    with pytest.raises(typer.Exit) as caught, sink():
        raise InputError("bad")
    assert caught.value.exit_code == 2


def test_a_file_that_the_system_refuses_is_bad_input(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, verify: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("loopedge.inspect", refuse, raising=False)
    outcome = cli("inspect", tiny)
    assert (outcome.code, outcome.err) == (2, f"error: {tiny}: Permission denied\n")


def test_metadata_that_is_damaged(cli: Cli, tiny: Path) -> None:
    import onnx

    model = onnx.load(tiny)
    for entry in model.metadata_props:
        if entry.key == "loopedge.loops":
            entry.value = "many"
    onnx.save(model, tiny)
    outcome = cli("inspect", tiny)
    assert outcome.code == 2
    assert "metadata of the model is damaged" in outcome.err
    assert len(outcome.err.splitlines()) == 1
