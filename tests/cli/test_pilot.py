"""``loopedge pilot TASK``: what it writes, keeps, counts and refuses."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import loopedge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytest.importorskip("torch", reason="training needs the extra 'train'")

from loopedge.profiler.pipeline import profile

SMALL = (
    "--d-model", 16, "--heads", 2, "--steps", 3, "--batch-size", 4, "--samples", 16, "--lr", 1e-3,
)  # fmt: skip
TASK = ("sorting", "--length", 4, "--vocab", 6)
KEYS = {
    "schema_version",
    "path",
    "command",
    "machine",
    "task",
    "design",
    "metric",
    "higher_is_better",
    "notes",
    "verdict",
    "summary",
    "cells",
    "profile",
    "seconds",
    "margin",
    "leaderboard",
    "baselines",
    "looks",
    "left_out",
    "complete",
    "made",
    "planned",
    "windows",
}


def seven_bits(model: Path, path: Path, **options: Any) -> loopedge.QuantizeResult:
    """Quantize as the pilot does, to the same integers on every processor."""
    return loopedge.quantize(model, path, **options, reduce_range=True)


@pytest.mark.long
def test_every_run_is_trained_exported_quantized_judged_and_reported(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.study.runs.cell.quantize", seven_bits)
    once = partial(profile, processes=1, runs=3)  # how it measures is tested elsewhere
    monkeypatch.setattr("loopedge.study.cost.profile", once)
    folder = tmp_path / "study"
    words = ("--loops", "1,2", "--arms", "looped,timestep", "--seeds", 1, "-o", folder)
    outcome = cli("pilot", *TASK, *SMALL, *words, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert set(found) == KEYS
    assert found == json.loads((folder / "results.json").read_text())
    assert [(row["arm"], row["loops"], row["runs"]) for row in found["summary"]] == [
        ("looped", 1, 1),
        ("looped", 2, 1),
        ("timestep", 1, 1),
        ("timestep", 2, 1),
    ]
    for row in found["summary"]:
        assert {"float", "int8"} <= set(row["cost"])
        assert row["cost"]["int8"]["weight_bytes"] < row["cost"]["float"]["weight_bytes"]
    twins = [row["cost"]["untied"] for row in found["summary"] if "untied" in row["cost"]]
    assert len(twins) == 1  # of the last arm, at two loops
    assert twins[0]["weight_bytes"] > found["summary"][3]["cost"]["float"]["weight_bytes"]
    assert {cell["status"] for cell in found["cells"]} == {"done"}
    assert all(0 <= cell["int8"]["accuracy"] <= 1 for cell in found["cells"])
    run = folder / "runs" / "timestep-r2-s0"
    assert {
        "model.pt",
        "model.onnx",
        "model.int8.onnx",
        "model.metrics.jsonl",
        "cell.json",
        "samples.npz",
    } == {path.name for path in run.iterdir()}
    assert found["verdict"]["headline"].startswith("Undecided: a verdict needs 3 runs")
    assert (found["complete"], found["made"], found["planned"]) == (True, 4, 4)
    assert {place["kind"] for place in found["leaderboard"]} == {"looped", "plain"}
    assert sorted(found["baselines"]) == ["s0"]
    assert "measuring 9 models" in outcome.err
    assert "run 4 of 4: timestep-r2-s0: accuracy" in outcome.err
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert str(tmp_path) not in page
    assert str(tmp_path) not in json.dumps({**found, "path": ""})

    (folder / "runs" / "looped-r2-s0" / "cell.json").unlink()
    again = cli("pilot", *TASK, *SMALL, *words, "--resume")
    assert again.code == 0, again.err
    assert "3 of 4 runs are kept" in again.err
    assert "run 4 of 4: looped-r2-s0" in again.err
    other = cli("pilot", *TASK, *SMALL, *words, "--resume", "--lr", 0.1)
    assert other.code == 2
    assert "holds another pilot: design.train was" in other.err
    more = cli("pilot", *TASK, *SMALL, *words, "--resume", "--seeds", 2, "--json")
    assert more.code == 0, more.err
    assert "4 of 8 runs are kept" in more.err
    assert [row["runs"] for row in more.json()["summary"]] == [2, 2, 2, 2]
    assert sorted(more.json()["baselines"]) == ["s0", "s1"]


@pytest.mark.usefixtures("diverging")
def test_diverged_runs_are_counted_and_the_pilot_goes_on(cli: Cli, tmp_path: Path) -> None:
    words = ("--loops", "2", "--arms", "timestep", "--seeds", 1)
    edit = ("edit-distance", "--length", 4)
    outcome = cli("pilot", *edit, *SMALL, *words, "-o", tmp_path / "p", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    (cell,) = found["cells"]
    assert cell["status"] == "diverged"
    assert "training diverged at step 3 of 3: loss inf" in cell["reason"]
    assert found["summary"][0]["diverged"] == 1
    assert found["verdict"]["statements"][0]["why"] == "nothing-finished"
    assert "diverged" in (tmp_path / "p" / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_runs_at_the_same_time_give_the_same_models(cli: Cli, tmp_path: Path) -> None:
    words = ("--loops", "1,2", "--arms", "timestep", "--seeds", 1)
    for name, jobs in (("one", 1), ("two", 2)):
        outcome = cli(
            "pilot", *TASK, *SMALL, *words, "--jobs", jobs, "-o", tmp_path / name, "--json"
        )
        assert outcome.code == 0, outcome.err
    for run in ("timestep-r1-s0", "timestep-r2-s0"):
        one, two = (
            json.loads((tmp_path / name / "runs" / run / "cell.json").read_text())["test"]
            for name in ("one", "two")
        )
        assert one == two


@pytest.mark.long
def test_several_series_with_short_histories_are_reported_to_the_end(
    cli: Cli, tmp_path: Path
) -> None:
    data = tmp_path / "groups.csv"
    rows = [f"{g},{t},{math.sin(t / 3):.4f}" for g in "ab" for t in range(60)]
    data.write_text("\n".join(["g,t,y", *rows, "c,0,1.0"]) + "\n")
    series = ("series", data, "--target", "y", "--group", "g", "--time", "t", "--context", 6)
    words = (*series, "--min-context", 3, "--horizon", 2, *SMALL, "--loops", "1", "--seeds", 1)
    outcome = cli("pilot", *words, "--arms", "looped", "-o", tmp_path / "p")
    assert outcome.code == 0, outcome.err
    assert "note: 1 of 3 series are too short" in outcome.err
    assert "1 of 3 series are too short" in (tmp_path / "p" / "report.html").read_text("utf-8")
    data.write_text(data.read_text().replace("0.0000", "5.0000"))
    other = cli("pilot", *words, "--arms", "looped", "-o", tmp_path / "p", "--resume")
    assert other.code == 2
    assert "holds another pilot" in other.err


def test_a_report_that_stands_elsewhere_is_not_written_over(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "precious.html"
    page.write_text("precious")
    outcome = cli("pilot", *TASK, *SMALL, "-o", tmp_path / "p", "--html", page)
    assert outcome.code == 2
    assert "exists already" in outcome.err
    assert page.read_text() == "precious"
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--loops", "1,x"), "'--loops': '1,x' is neither a count nor counts"),
        (("--arms", "looped,best"), "arm 'best' is not known"),
        (("--d-model", 30), "not a multiple of heads"),
        (("--seeds", 0), "seeds is 0"),
        (("--resume",), "no pilot to resume"),
        (("-o", "nowhere/pilot"), "folder nowhere does not exist"),
        (("-o", "full"), "full is not empty"),
        (("-o", "full", "--force"), "holds something else than a pilot"),
        (("-o", "full/file"), "is a file, a folder is needed"),
        (("--timestep", "none"), "No such option"),
        (("--seeds", "some"), "'some' is neither a number of seeds nor auto"),
        (("--lr", "1e-3,fast"), "'1e-3,fast' is neither a learning rate nor some"),
        (("--lr", "1e-3,1e-3"), "--lr 0.001,0.001: different numbers"),
        (("--budget", "soon"), "'soon' is not a time such as"),
        (("--max-memory", "0"), "'0' is not a size such as"),
        (("--margin", "much"), "--margin is 'much'"),
        (("--origins", 2), "--origins is of a forecast, the task sorting has one test split"),
        (("--ray", "nowhere"), "nowhere is not the address of a Ray cluster"),
    ],
)
def test_what_cannot_be_made_is_refused_with_nothing_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    outcome = cli("pilot", *TASK, *words)
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]
