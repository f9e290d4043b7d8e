from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.mark.slow
def test_a_met_budget_is_reported(cli: Cli, tiny: Path) -> None:
    outcome = cli("quantize", tiny, "--max-drop", "0.5")
    assert outcome.code == 0
    assert "budget" in outcome.out
    assert "of 0.5 allowed" in outcome.out
    found = cli("quantize", tiny, "--max-drop", "0.5", "--force", "--json").json()["budget"]
    assert found["metric"] == "relative-error"
    assert found["loss"] == found["loss_int8"] <= 0.5
    assert (found["lifted"], found["sensitivity"]) == ([], [])


@pytest.mark.slow
def test_what_is_lifted_stands_with_cost_and_gain(cli: Cli, tiny: Path) -> None:
    loss = cli("quantize", tiny, "--max-drop", "0.5", "--json").json()["budget"]["loss"]
    words = ("quantize", tiny, "--max-drop", 0.95 * loss, "--force")
    outcome = cli(*words)
    assert outcome.code == 0
    for text in ("lifted for the budget", "won", "bytes more", "ms more", "worst iteration"):
        assert text in outcome.out
    assert "budget" in outcome.out
    assert "with none lifted" in outcome.out


@pytest.mark.parametrize(
    ("drop", "code", "text"),
    [("0.000001", 4, "with all linears but"), ("-1", 2, "0 or more"), ("1e-9", 2, "float32")],
)
def test_a_missed_budget_exits_4_a_senseless_one_2(
    drop: str, code: int, text: str, cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    outcome = cli("quantize", tiny, "--max-drop", drop)
    assert outcome.code == code
    assert text in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_metric_needs_a_budget(cli: Cli, tiny: Path) -> None:
    outcome = cli("quantize", tiny, "--metric", "relative-error")
    assert outcome.code == 2
    assert "--max-drop" in outcome.err
