"""``loopedge compare``: two printed profiles, exit code 4 past what is allowed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loopedge.files.plain_json import dump_json
from loopedge.profiler.result_file import profile_schema, read_profile
from tests.cli.test_docs import SECTIONS
from tests.unit.profiles import make_pair

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(dump_json(make_pair().to_json()))
    after.write_text(dump_json(make_pair(peak=400).to_json()))
    return before, after


def documented(key: str, command: str) -> bool:
    return re.search(rf"\b{key}\b", SECTIONS[command]) is not None


def keys_of(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if not isinstance(value, dict):
        return set()
    return {*value, *(key for item in value.values() for key in keys_of(item))}


@pytest.mark.slow
def test_what_is_printed_is_a_profile(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    outcome = cli("profile", tiny, "--untied", "--runs", 3, "--processes", 1, "--json")
    assert outcome.code == 0, outcome.err
    path = tmp_path / "profile.json"
    path.write_text(outcome.out)
    result = read_profile(path)
    assert [run.twin for run in result.runs] == [None, "untied"]
    assert result.to_json() == outcome.json()
    compared = cli("compare", path, path, "--max-regression", 0, "--json")
    assert compared.code == 0, compared.err
    assert len(compared.json()["runs"]) == 2


def test_every_key_of_a_profile_is_documented() -> None:
    schema = profile_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {key for part in parts for key in part["properties"]}
    assert {"rss_peak_bytes", "packed_bytes", "fell_back", "p50_ms"} <= keys
    assert [key for key in sorted(keys) if not documented(key, "profile")] == []


def test_growth_is_reported_and_past_what_is_allowed_exits_with_4(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    outcome = cli("compare", *files)
    assert outcome.code == 0, outcome.err
    assert "1.11x" in outcome.out
    outcome = cli("compare", *files, "--max-regression", 0.05)
    assert outcome.code == 4
    assert "regression: tmlt.onnx (untied): peak memory is 1.11x what it was" in outcome.out
    assert outcome.err.startswith("error: tmlt.onnx (untied): ")
    assert cli("compare", *files, "--max-regression", 0.2).code == 0
    assert cli("compare", *reversed(files), "--max-regression", 0).code == 0


def test_json_is_printed_before_it_fails_and_every_key_is_documented(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    outcome = cli("compare", *files, "--max-regression", 0.05, "--json")
    assert outcome.code == 4
    found = outcome.json()
    assert {item["figure"] for item in found["regressions"]} >= {"rss_peak_bytes"}
    assert [key for key in sorted(keys_of(found)) if not documented(key, "compare")] == []


def test_what_cannot_be_compared_is_refused_in_one_line(
    cli: Cli, files: tuple[Path, Path], tmp_path: Path
) -> None:
    before, after = files
    old = tmp_path / "old.json"
    old.write_text(json.dumps({**json.loads(before.read_text()), "schema_version": 2}))
    for words, said in (
        ((before, tmp_path / "none.json"), "does not exist"),
        ((old, after), "has schema version 2, 3 is read here"),
        ((before, after, "--max-regression", -1), "max-regression is -1.0, 0 or more is needed"),
        ((before,), "Missing argument 'AFTER.json'."),
        ((before, after, "model.onnx"), "Got unexpected extra argument"),
        ((before, after, "--untied"), "No such option: --untied"),
    ):
        outcome = cli("compare", *words)
        assert outcome.code == 2, outcome.err
        assert said in outcome.err
        assert outcome.out == ""
        assert outcome.err.count("\n") == 2  # the error and its hint
    assert cli("profile").code == 2


def test_a_profile_compares_no_more(cli: Cli, files: tuple[Path, Path]) -> None:
    outcome = cli("profile", "--compare", *files)
    assert outcome.code == 2
    assert outcome.err.startswith("error: No such option: --compare")
    assert outcome.out == ""


@pytest.mark.slow
def test_the_report_of_a_bundle_stands_beside_a_profile(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    bundle, report, profile = tmp_path / "bundle", tmp_path / "d.json", tmp_path / "w.json"
    outcome = cli("package", tiny, "--for", "python", "-o", bundle)
    assert outcome.code == 0, outcome.err
    words = [sys.executable, str(bundle / "python" / "bench.py"), "--runs", "3"]
    report.write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    (model,) = (bundle / "models").glob("*.onnx")
    sequence = json.loads(report.read_text())["runs"][0]["sequence"]
    outcome = cli("profile", model, "--sequence", sequence, "--runs", 3, "--processes", 1, "--json")
    profile.write_text(outcome.out)
    compared = cli("compare", profile, report, "--json")
    assert compared.code == 0, compared.err
    found = compared.json()
    assert (found["before_client"], found["after_client"]) == (None, "python")
    changes = {change["figure"]: change for change in found["runs"][0]["changes"]}
    assert changes["file_bytes"]["ratio"] == 1
    assert changes["latency_ms.p50"]["judged"] is False
    assert cli("compare", profile, report, "--max-regression", 0.05).code == 2
