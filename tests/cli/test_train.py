"""``loopedge train``: what it writes, what it says, and what it refuses with nothing written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Said

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 4, "--batch-size", 4)
DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "train": ("training", "tasks", "series"),
    "pilot": ("pilot", "training", "tasks", "series"),
}
WINDOW = ("--context", 8, "--horizon", 2)
KEYS = {
    "path",
    "metrics_path",
    "task",
    "metric",
    "validation",
    "test",
    "baselines",
    "parameters",
    "loops",
    "steps",
    "best_step",
    "stopped_early",
    "stability",
    "processes",
    "resumed_from",
    "train_loss",
    "seconds",
    "tokens_per_second",
    "mase_season",
    "mase_scale",
    "intervals",
    "notes",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    rows = [f"{r},{20 + 5 * math.sin(r / 3):.4f},{r % 7}" for r in range(120)]
    path.write_text("\n".join(["day,sales,weekday", *rows]) + "\n")
    return path


def refused(outcome: Said, words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert words in outcome.err
    first, *hints = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert len(hints) <= 1
    assert all(line.startswith("hint: ") for line in hints)


def test_series(cli: Cli, data: Path) -> None:
    target = data.parent / "model.pt"
    words = ("--target", "sales", "--covariate", "weekday", *WINDOW, *SMALL)
    outcome = cli("train", "series", data, *words, "-o", target, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert set(found) == KEYS
    assert set(found["test"]) == {"rmse", "mae", "mase"}
    assert {"naive_last", "seasonal_naive"} == set(found["baselines"])
    assert sorted(path.name for path in data.parent.iterdir()) == [
        "data.csv",
        "model.metrics.jsonl",
        "model.pt",
    ]
    note, few = found["notes"]  # after four steps
    assert few == "no 95 % interval: 17 validation windows are too few, it needs 19"
    assert [level["level"] for level in found["intervals"]["levels"]] == [80]
    best = min(scores["rmse"] for scores in found["baselines"].values())
    assert note.startswith("the model does not beat the baseline ")
    assert f" on the test split: rmse {found['test']['rmse']:.4g} against {best:.4g}, " in note
    assert f"warning: {note}" in outcome.err
    assert f"warning: {few}" in outcome.err
    (line,) = Path(found["metrics_path"]).read_text().splitlines()
    assert json.loads(line)["step"] == 4
    assert cli("train", "series", data, *words, "-o", target).code == 2
    shown = cli("train", "series", data, *words, "-o", target, "--force")
    assert "naive last" in shown.out
    assert "step 4 of 4" in shown.err
    quiet = cli("train", "series", data, *words, "-o", target, "--force", "--quiet")
    assert (quiet.out, quiet.err) == (f"{target}\n", "")


@pytest.mark.parametrize(
    "words", [("edit-distance", "--length", 5), ("sorting", "--length", 4, "--vocab", 6)]
)
def test_generated_tasks(cli: Cli, tmp_path: Path, words: tuple[object, ...]) -> None:
    outcome = cli("train", *words, *SMALL, "-o", tmp_path / "model.pt", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["task"] == words[0]
    assert 0 <= found["test"]["accuracy"] <= 1


@pytest.mark.slow
def test_raw_units_in_and_out_of_the_exported_graph(cli: Cli, data: Path) -> None:
    import numpy as np

    import loopedge

    folder = data.parent
    model, exported = folder / "model.pt", folder / "model.onnx"
    words = ("--target", "sales", *WINDOW, *SMALL, "-o", model)
    assert cli("train", "series", data, *words).code == 0
    assert cli("export", model, "-o", exported).code == 0
    window = 20 + 5 * np.sin(np.arange(8) / 3).astype(np.float32)[None, :, None]
    (forecast,) = loopedge.Session(exported).run({"inputs": window}).values()
    assert forecast.shape == (1, 2, 1)
    assert 10 < forecast.min() <= forecast.max() < 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text.replace("sales", "income"), "the columns are day, income, weekday"),
        (lambda text: text.replace("20.0000", "twenty"), "row 1 (line 2), column 'sales'"),
        (lambda text: text.replace("20.0000", ""), "the value is missing"),
        (lambda text: "\n".join(text.splitlines()[:12]), "has 11 rows"),
        (lambda text: text + "1,2\n", "row 121 (line 122) has 2 values"),
    ],
)
def test_a_bad_csv(cli: Cli, data: Path, change: object, words: str) -> None:
    assert callable(change)
    data.write_text(change(data.read_text()))
    options = ("--target", "sales", *WINDOW, *SMALL, "-o", data.parent / "model.pt")
    refused(cli("train", "series", data, *options), words)
    assert list(data.parent.iterdir()) == [data]


def test_times_must_ascend(cli: Cli, data: Path) -> None:
    options = (
        "--target",
        "sales",
        "--time",
        "day",
        *WINDOW,
        *SMALL,
        "-o",
        data.parent / "model.pt",
    )
    assert cli("train", "series", data, *options).code == 0
    header, first, second, *rest = data.read_text().splitlines()
    data.write_text("\n".join([header, second, first, *rest]) + "\n")
    outcome = cli("train", "series", data, *options, "--force")
    refused(outcome, "row 2 (line 3), column 'day': '0' is earlier than '1'")
    assert "sort the rows by 'day'" in outcome.err


def test_a_gap_is_filled_when_asked(cli: Cli, data: Path) -> None:
    data.write_text(data.read_text().replace("20.0000", "NA"))
    options = ("--target", "sales", *WINDOW, *SMALL, "-o", data.parent / "model.pt")
    outcome = cli("train", "series", data, *options)
    refused(outcome, "missing")
    assert "--missing interpolate" in outcome.err
    assert cli("train", "series", data, *options, "--missing", "interpolate").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing command"),
        (("chess",), "No such command 'chess'"),
        (("series",), "Missing argument 'DATA'"),
        (("series", "absent.csv", "--target", "y", *WINDOW), "absent.csv does not exist"),
        (("sorting", "--loops", 0), "'--loops'"),
        (("sorting", "--d-model", 30), "not a multiple of heads"),
        (("sorting", "--length", 1), "length is 1"),
        (("sorting", "--lr", 0), "lr is 0.0"),
        (("sorting", "--lr", "nan"), "lr is nan"),
        (("sorting", "--timestep", "cosine"), "'--timestep'"),
        (("sorting", "--resume"), "no run to resume"),
        (("edit-distance", "--length", 2), "allowed 4 to 1000"),
        (("sorting", "-o", "nowhere/model.pt"), "nowhere does not exist"),
        (("sorting", "-o", "."), "is a folder"),
    ],
)
def test_bad_options(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("train", *words), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk(cli: Cli, small_disk: Path) -> None:
    words = ("sorting", "--d-model", 64, "--steps", 2, "--batch-size", 2, "--quiet")
    refused(cli("train", *words, "-o", small_disk / "model.pt"), "no space left")
    assert not (small_disk / "model.pt").exists()


def test_an_unwritable_folder(cli: Cli, read_only: Path) -> None:
    refused(cli("train", "sorting", *SMALL, "-o", read_only / "model.pt"), "cannot be written")


@pytest.mark.usefixtures("diverging")
def test_divergence_is_no_success(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("train", "edit-distance", "--length", 4, *SMALL, "-o", tmp_path / "model.pt")
    assert outcome.code == 1
    assert "training diverged at step 3 of 4: loss inf" in outcome.err
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("name", ["train", "pilot"])
def test_every_flag_is_documented(name: str) -> None:
    import importlib

    from typer.main import get_command

    group = getattr(importlib.import_module(f"loopedge_cli.commands.{name}"), name)
    page = "".join((DOCS / f"{part}.md").read_text("utf-8") for part in PAGES[name])
    flags = {
        flag
        for command in get_command(group).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    everywhere = {"--json", "--quiet", "--debug", "--force", "--help"}
    assert [flag for flag in sorted(flags - everywhere) if flag not in page] == []


def test_every_key_is_documented() -> None:
    page = (DOCS / "training.md").read_text("utf-8")
    assert [key for key in sorted(KEYS) if key not in page] == []
