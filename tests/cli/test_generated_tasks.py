"""The paper's generated tasks on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 2, "--batch-size", 4)


@pytest.mark.parametrize(
    ("words", "metrics", "baselines"),
    [
        (("lcs", "--length", 5, "--letters", 3), {"accuracy", "mean_abs_error"}, {"most_frequent"}),
        (
            ("lcs", "--length", 5, "--prefixes"),
            {"accuracy", "mean_abs_error", "prefix_accuracy"},
            {"most_frequent"},
        ),
        (
            ("sudoku", "--box", 2, "--blanks", 5, "--puzzles", 20),
            {"accuracy", "sequence_accuracy"},
            {"first_allowed", "singles"},
        ),
        (
            ("countdown", "--numbers", 3, "--largest", 9),
            {"accuracy", "sequence_accuracy", "solved"},
            {"random_steps"},
        ),
        (
            ("in-context-linear", "--dims", 2, "--points", 5, "--noise", 0.1),
            {"mse", "last_mse"},
            {"zero", "least_squares"},
        ),
        (
            ("in-context-trees", "--dims", 2, "--points", 5, "--depth", 2),
            {"mse", "last_mse"},
            {"zero", "nearest_point"},
        ),
    ],
)
def test_a_task_trains(
    cli: Cli,
    tmp_path: Path,
    words: tuple[object, ...],
    metrics: set[str],
    baselines: set[str],
) -> None:
    outcome = cli("train", *words, *SMALL, "-o", tmp_path / "model.pt", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["task"] == words[0]
    assert set(found["test"]) == metrics
    assert found["metric"] in metrics
    assert set(found["baselines"]) == baselines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lcs", "--length", 1), "lcs: length is 1, allowed 2 to 1000"),
        (("lcs", "--letters", 1), "lcs: letters is 1, allowed 2 to 1000"),
        (("sudoku", "--blanks", 60), "sudoku: blanks is 60, allowed 1 to 57 with box 3"),
        (("sudoku", "--box", 4), "sudoku: box is 4, allowed 2 (4x4) and 3 (9x9)"),
        (("sudoku", "--puzzles", 0), "sudoku: puzzles is 0, allowed 1 to 100000"),
        (("countdown", "--numbers", 6), "countdown: numbers is 6, allowed 3 to 5"),
        (("countdown", "--largest", 1000), "countdown: largest is 1000, allowed 5 to 250"),
        (("in-context-linear", "--noise", "-1"), "noise is -1.0, allowed 0 to 1000"),
        (("in-context-linear", "--dims", 0), "dims is 0, allowed 1 to 100"),
        (("in-context-trees", "--depth", 0), "depth is 0, allowed 1 to 12"),
        (("in-context-trees", "--points", 1), "points is 1, allowed 2 to 500"),
    ],
)
def test_sizes_out_of_range(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("train", *words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {said}") or f": {said}" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
