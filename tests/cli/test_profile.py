from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


RUN_KEYS = {
    "anon_bytes",
    "file_bytes",
    "form",
    "latency_ms",
    "load_seconds",
    "loops",
    "name",
    "ops",
    "path",
    "provider",
    "rss_load_bytes",
    "rss_peak_bytes",
    "threads",
    "twin",
}
QUICK = ("--runs", "3", "--processes", "1")


@pytest.mark.slow
def test_json_holds_the_documented_keys(cli: Cli, tiny: Path, tiny_dynamic: Path) -> None:
    outcome = cli("profile", tiny, tiny_dynamic, "--untied", *QUICK, "--json", "--sequence", "5")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert set(found) >= {"schema_version", "machine", "runs"}
    order = [(run["path"], run["twin"]) for run in found["runs"]]
    assert [path for path, twin in order if twin is None] == [str(tiny), str(tiny_dynamic)]
    for model in (str(tiny), str(tiny_dynamic)):
        assert order.index((model, None)) < order.index((model, "untied"))
    for run in found["runs"]:
        assert set(run) >= RUN_KEYS
        assert set(run["latency_ms"]) >= {"p50", "p95", "p99", "mean", "min"}
        assert set(run["ops"][0]) >= {"op", "count", "ms", "share"}


@pytest.mark.slow
def test_people_see_a_table_and_may_have_html(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    outcome = cli("profile", tiny, *QUICK, "--html", page)
    assert outcome.code == 0, outcome.err
    assert "tiny" in outcome.out
    assert f"report: {page}" in outcome.err
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_given_inputs_are_used(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "x.npz", tmp_path / "y.npz"
    np.savez(good, input_ids=np.zeros((1, 4), np.int64))
    np.savez(bad, tokens=np.zeros((1, 4), np.int64))
    assert cli("profile", tiny, *QUICK, "--input", good, "--quiet").code == 0
    outcome = cli("profile", tiny, *QUICK, "--input", bad)
    assert outcome.code == 2
    assert "input_ids" in outcome.err
