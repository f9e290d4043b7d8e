"""What ``train`` and ``pilot`` say of columns, and ``--scaling window`` from the table to the forecasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 4, "--batch-size", 4)
LEVELS = {"shed": 1.0, "mill": 40_000.0}


@pytest.fixture
def meters(tmp_path: Path) -> Path:
    """Two meters far apart, a counter, a column that never changes, and milliseconds since 1970."""
    path = tmp_path / "meters.csv"
    rows = [
        f"{name},{hour},{level * (1 + 0.1 * math.sin(hour / 4)):.6f},{7 * hour},5,{1.7e12 + 3.6e6 * hour:.0f}"
        for name, level in LEVELS.items()
        for hour in range(120)
    ]
    path.write_text("\n".join(["meter,hour,power,count,volt,ms", *rows]) + "\n", encoding="utf-8")
    return path


def train(cli: Cli, table: Path, *words: Any) -> Any:
    target = table.parent / "m.pt"
    common = ("--target", "power", "--group", "meter", "--context", 12, "--horizon", 3)
    return cli("train", "series", table, *common, *words, *SMALL, "--force", "-o", target)


def test_each_column_is_named_with_the_option_that_acts(cli: Cli, meters: Path) -> None:
    words = [word for name in ("count", "volt", "ms") for word in ("--covariate", name)]
    said = train(cli, meters, *words)
    assert said.code == 0, said.err
    text = " ".join(said.err.split())
    for expected in (
        "column 'volt' is 5 in every table row: it tells a model nothing (leave out --covariate volt)",
        "column 'count' only rises: 100% of the test rows lie beyond the 0 to 581 of training",
        "(--scaling window, or leave out --covariate count, if it is an id or a time)",
        "column 'ms' stands at about 1,700,214,200,000 and moves by about 3,600,000 from row to row",
        "so the model takes and gives float64",
        "column 'power' stands at 1.007 to 40,273 on average in 2 series, and 1 of them swings",
        "one mean and one deviation for all hide what they do (--scaling window)",
    ):
        assert expected in text, text


@pytest.mark.slow
def test_window_scaling_reaches_the_file_and_the_forecast(cli: Cli, meters: Path) -> None:
    folder = meters.parent
    said = train(cli, meters, "--scaling", "window", "--time", "hour")
    assert said.code == 0, said.err
    assert "--scaling window" not in said.err  # it is
    assert cli("export", folder / "m.pt", "-o", folder / "m.onnx").code == 0
    ran = cli("run", folder / "m.onnx", "--input", meters, "--json")
    assert ran.code == 0, ran.err
    values = {
        series["name"]: np.array(series["values"]["power"])
        for series in ran.json()["forecast"]["series"]
    }
    for name, level in LEVELS.items():
        seen = level * (1 + 0.1 * np.sin(np.arange(108, 120) / 4))
        assert np.abs(values[name] - seen.mean()).max() < 5 * seen.std()  # in its own units
    np.testing.assert_allclose(values["mill"] / 40_000, values["shed"], rtol=1e-4)


def test_a_wrong_word_is_one_line(cli: Cli, meters: Path) -> None:
    said = train(cli, meters, "--scaling", "row")
    assert said.code == 2
    assert "--scaling" in said.err


@pytest.mark.parametrize("scaling", ["column", "window"])
def test_labels_of_windows_can_be_scaled_by_window(cli: Cli, meters: Path, scaling: str) -> None:
    table = meters.parent / "labels.csv"
    rows = [
        f"{9e8 + 10 * math.sin(row / 5):.3f},{'up' if row % 9 < 5 else 'down'}"
        for row in range(120)
    ]
    table.write_text("\n".join(["y,way", *rows]) + "\n", encoding="utf-8")
    words = ("--classify", "way", "--covariate", "y", "--context", 8, "--scaling", scaling)
    target = meters.parent / "l.pt"
    said = cli("train", "series", table, *words, *SMALL, "-o", target, "--json")
    assert said.code == 0, said.err
    assert "takes and gives float64" in " ".join(said.err.split())


@pytest.mark.slow
def test_the_pilot_says_the_same(cli: Cli, meters: Path) -> None:
    words = ("--target", "power", "--group", "meter", "--context", 12, "--horizon", 3)
    sizes = (
        "--d-model",
        16,
        "--heads",
        2,
        "--loops",
        1,
        "--steps",
        2,
        "--batch-size",
        4,
        "--seeds",
        1,
        "--lr",
        1e-3,
    )
    said = cli("pilot", "series", meters, *words, *sizes, "-o", meters.parent / "pilot")
    assert "one mean and one deviation for all hide what they do (--scaling window)" in " ".join(
        said.err.split()
    )
