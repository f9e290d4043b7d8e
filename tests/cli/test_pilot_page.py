"""``loopedge pilot --from results.json``: the page again, in another language, without data, with other limits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from loopedge.files.plain_json import dump_json
from loopedge.study.result_file import pilot_schema, read_pilot
from tests.unit.json_schema import problems
from tests.unit.pilot_results import make_undecided, make_yes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(dump_json(make_yes().to_json()), encoding="utf-8")
    return path


def test_the_page_is_made_again(cli: Cli, results: Path) -> None:
    outcome = cli("pilot", "--from", results)
    assert outcome.code == 0, outcome.err
    assert "timestep with 8 loops beats climatology + autoregression" in outcome.out
    page = results.with_name("report.html")
    assert f"report: {page}" in outcome.err
    assert "<h2>Forecasts</h2>" in page.read_text(encoding="utf-8")
    again = cli("pilot", "--from", results)
    assert again.code == 2
    assert "exists already" in again.err
    assert cli("pilot", "--from", results, "--force", "--quiet").out == f"{page}\n"


def test_it_speaks_japanese(cli: Cli, results: Path, tmp_path: Path) -> None:
    page = tmp_path / "ja.html"
    outcome = cli("pilot", "--from", results, "--language", "ja", "--html", page)
    assert outcome.code == 0, outcome.err
    assert "はい。timestep\uff088ループ\uff09は" in outcome.out
    assert '<html lang="ja">' in page.read_text(encoding="utf-8")


def test_no_data_is_neither_printed_nor_plotted(cli: Cli, results: Path) -> None:
    outcome = cli("pilot", "--from", results, "--no-data", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["windows"] == []
    assert "Forecasts" not in results.with_name("report.html").read_text(encoding="utf-8")


def test_other_limits_and_another_margin_are_judged(cli: Cli, results: Path) -> None:
    words = ("--max-latency", "1ms", "--max-memory", "1MiB", "--json", "--force")
    outcome = cli("pilot", "--from", results, *words)
    assert outcome.code == 0, outcome.err
    (found,) = (
        one for one in outcome.json()["verdict"]["statements"] if one["kind"] == "requirements"
    )
    # float: 0.405 ms, but 1.1 MiB; int8 with one loop: 0.559 ms and 0.77 MiB, the best of them looped
    assert found["meets"] == {"arm": "looped", "loops": 1}
    assert found["model"] == "int8"
    wide = cli("pilot", "--from", results, "--margin", "5", "--json", "--force")
    assert wide.code == 0, wide.err
    assert wide.json()["margin"] == {"value": 5.0, "text": "5", "of": ""}
    # within a margin of 5 everything is as good: one loop is enough
    decision = wide.json()["verdict"]["statements"][0]
    assert (decision["outcome"], decision["why"]) == ("no", "one-loop")
    bad = cli("pilot", "--from", results, "--margin", "much", "--force")
    assert bad.code == 2
    assert "--margin is 'much'" in bad.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a task, or the results of a pilot with --from"),
        (("--from", "missing.json"), "missing.json does not exist"),
        (("--from", "."), "is a folder"),
        (("--from", "old.json"), "has schema version 1, 2 is read here"),
        (("--from", "broken.json"), "is not the result of a pilot: it is not JSON"),
        (("--from", "results.json", "--html", "results.json", "--force"), "results.json"),
        (
            ("--from", "results.json", "--language", "de"),
            "Invalid value for '--language': 'de' is not one of",
        ),
        (("--from", "results.json", "--max-memory", "much"), "'much' is not a size such as 32MiB"),
        (("--from", "results.json", "--max-latency", "0"), "'0' is not a time such as 50ms"),
        (("--language", "ja", "sorting"), "it stands before the task 'sorting'"),
        (("--from", "results.json", "sorting"), "it stands before the task 'sorting'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    cli: Cli,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(results.parent)
    results.with_name("old.json").write_text('{"schema_version": 1, "verdict": {}}')
    results.with_name("broken.json").write_text("{")
    before = results.read_text(encoding="utf-8")
    outcome = cli("pilot", *words)
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
    assert [line.partition(":")[0] for line in outcome.err.splitlines()] == ["error", "hint"]
    assert results.read_text(encoding="utf-8") == before
    assert not results.with_name("report.html").exists()


@pytest.mark.slow
def test_the_page_is_made_without_torch(results: Path) -> None:
    program = (
        "import sys; from loopedge_cli.main import main\n"
        f"sys.argv = ['loopedge', 'pilot', '--from', {str(results)!r}, '-q']\n"
        "try: main()\n"
        "except SystemExit as left: print(left.code, 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] in ("0 False", "None False"), ended.stderr


def test_a_pilot_that_goes_on_says_so(cli: Cli, tmp_path: Path) -> None:
    found = json.loads(dump_json(make_undecided().to_json()))
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**found, "complete": False, "made": 7, "planned": 66}))
    outcome = cli("pilot", "--from", path)
    assert outcome.code == 0, outcome.err
    assert "The pilot is not finished: 7 of 66 runs are made." in outcome.out


@pytest.mark.long
def test_results_of_a_pilot_follow_their_schema(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from loopedge.profiler.pipeline import profile

    once = partial(profile, processes=1, runs=3)  # how it measures is tested elsewhere
    monkeypatch.setattr("loopedge.study.cost.profile", once)
    data = tmp_path / "sine.csv"
    data.write_text("y\n" + "\n".join(f"{100 + math.sin(row / 3):.4f}" for row in range(200)))
    sizes = ("--context", 8, "--horizon", 2, "--d-model", 16, "--heads", 2, "--steps", 3)
    words: tuple[Any, ...] = ("series", data, "--target", "y", *sizes, "--samples", 16)
    words += ("--loops", "1,2", "--arms", "looped", "--seeds", 1, "--lr", "1e-3")
    outcome = cli("pilot", *words, "-o", tmp_path / "p", "--language", "ja", "--max-latency", "1s")
    assert outcome.code == 0, outcome.err
    stored = tmp_path / "p" / "results.json"
    found = json.loads(stored.read_text(encoding="utf-8"))
    assert problems(found, pilot_schema()) == []
    assert json.loads(dump_json(read_pilot(stored).to_json())) == found
    assert [window["chosen_by"] for window in found["windows"]] == ["median", "median", "worst"]
    assert '<html lang="ja">' in (tmp_path / "p" / "report.html").read_text(encoding="utf-8")
    again = cli("pilot", *words, "-o", tmp_path / "p", "--resume", "--no-data")
    assert again.code == 0, again.err
    assert json.loads(stored.read_text(encoding="utf-8"))["windows"] == []
    assert "Forecasts" not in (tmp_path / "p" / "report.html").read_text(encoding="utf-8")
