"""``loopedge train series`` on tables of a company: what it takes, and what it refuses unwritten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli, Said

pytest.importorskip("torch", reason="training needs the extra 'train'")

SMALL = ("--d-model", 16, "--heads", 2, "--loops", 2, "--steps", 4, "--batch-size", 4)
FORECASTS = ("sales", "returns")
FORECAST = ("--target", "sales", "--context", 8, "--horizon", 2)


@pytest.fixture
def shops(tmp_path: Path) -> Path:
    """Twelve shops of 50 to 55 days, interleaved by day, some temperatures missing."""
    path = tmp_path / "shops.csv"
    rows = [
        f"{day},s{shop},{20 + shop + 5 * math.sin(day / (2 + shop % 2)):.3f},{day % 7},"
        f"{'' if day % 6 == 4 else day % 5},{'north' if shop % 2 else 'south'},{day % 2}"
        for day in range(55)
        for shop in range(12)
        if day < 50 + shop % 6
    ]
    path.write_text("\n".join(["day,shop,sales,returns,temp,region,open", *rows]) + "\n")
    return path


def refused(outcome: Said, words: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert words in outcome.err
    assert len(outcome.err.splitlines()) <= 2


def test_several_targets_of_several_series(cli: Cli, shops: Path) -> None:
    target = shops.parent / "m.pt"
    words = ["--target", "returns", "--covariate", "temp", "--group", "shop", "--time", "day"]
    words += ["--missing", "indicator", "--min-context", "3"]
    outcome = cli("train", "series", shops, *FORECAST, *words, *SMALL, "-o", target, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["metric"] == "scaled_rmse"
    each = {f"{metric}.{name}" for metric in ("rmse", "mae", "mase") for name in FORECASTS}
    assert set(found["test"]) == {"scaled_rmse", "mase", *each}
    assert set(found["baselines"]["naive_last"]) == set(found["test"])


@pytest.mark.parametrize(
    "words",
    [
        (
            "region",
            "--group",
            "shop",
            "--context",
            60,
            "--min-context",
            50,
            "--missing",
            "indicator",
        ),
        ("open", "--context", 8, "--missing", "interpolate"),
    ],
)
def test_classes(cli: Cli, shops: Path, words: tuple[object, ...]) -> None:
    inputs = ("--covariate", "sales", "--covariate", "temp")
    target = shops.parent / "m.pt"
    outcome = cli(
        "train", "series", shops, "--classify", *words, *inputs, *SMALL, "-o", target, "--json"
    )
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["metric"] == "accuracy"
    assert set(found["test"]) == {"accuracy", "macro_f1"}
    assert set(found["baselines"]) == {"most_frequent"}


def test_origins(cli: Cli, shops: Path) -> None:
    words = ("train", "series", shops, *FORECAST, *SMALL, "--origins", 3, "--force")
    found = cli(*words, "-o", shops.parent / "m.pt", "--json").json()
    assert len(found["origins"]) == 3
    assert set(found["mean"]) == set(found["deviation"]) == {"rmse", "mae", "mase"}
    shown = cli(*words, "-o", shops.parent / "m.pt")
    for words_shown in ("origin 3 (test)", "standard deviation", "naive last, mean"):
        assert words_shown in shown.out
    assert "origin 2 of 3" in shown.err


@pytest.mark.slow
def test_labels_are_reported_when_it_runs(cli: Cli, shops: Path) -> None:
    folder = shops.parent
    model, exported = folder / "m.pt", folder / "m.onnx"
    inputs = ("--covariate", "sales", "--covariate", "temp", "--missing", "indicator")
    words = ("--classify", "region", *inputs, "--context", 8, *SMALL, "-o", model)
    assert cli("train", "series", shops, *words).code == 0
    assert cli("export", model, "-o", exported).code == 0
    source = folder / "x.csv"
    source.write_text("sales,temp\n" + "20,3\n" * 6 + "21,\n,4\n")
    outcome = cli("run", exported, "--input", source, "-o", folder / "y.npz", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    with np.load(folder / "y.npz") as outputs:
        logits = outputs["logits"]
    assert logits.shape == (1, 2)
    assert np.isfinite(logits).all()
    assert found["labels"] == [["north", "south"][logits[0].argmax()]]
    shown = cli("run", exported, "--input", source).out
    assert "'region' of x.csv" in shown
    assert found["labels"][0] in shown
    static = ("--scheme", "static", "--reduce-range")  # the same integers on every processor
    assert cli("quantize", exported, *static, "--data", shops, "-o", folder / "q.onnx").code == 0
    quantized = cli("run", folder / "q.onnx", "--input", source, "--json").json()
    assert len(quantized["labels"]) == 1
    csv = pytest.importorskip("pyarrow.csv", reason="Parquet needs the extra 'parquet'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(csv.read_csv(shops), folder / "shops.parquet")
    calibrate = ("quantize", exported, *static, "-o", folder / "p.onnx", "--data")
    assert cli(*calibrate, folder / "shops.parquet").code == 0
    assert (folder / "p.onnx").read_bytes() == (folder / "q.onnx").read_bytes()
    source.write_text("sales,temp\n20,3\n20,4\n")
    refused(cli("run", exported, "--input", source), "2 table rows are too few")
    source.write_text("sales,temp\n20,x\n")
    refused(cli("run", exported, "--input", source), "'x' is not a number")


def test_an_empty_cell_is_refused_by_a_model_that_takes_none(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    source = tmp_path / "x.csv"
    source.write_text("1,2\n3,\n")
    refused(cli("run", tiny, "--input", source), "row 2 (line 2), column 2: the value is missing")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "needs --target and --horizon to forecast, or --classify"),
        (("--target", "sales"), "needs --target and --horizon"),
        (("--classify", "region"), "needs a column that the model sees"),
        (("--classify", "region", "--target", "sales"), "--target is of a forecast"),
        (("--classify", "region", "--horizon", 3), "--horizon is of a forecast"),
        (("--classify", "region", "--origins", 3), "--origins is of a forecast"),
        (("--target", "sales", "--horizon", 2, "--missing", "drop"), "'--missing'"),
        (("--target", "sales", "--horizon", 2, "--origins", 1), "'--origins'"),
        (("--target", "temp", "--horizon", 2), "add --missing interpolate"),
        (("--target", "region", "--horizon", 2), "'south' is not a number (630 values"),
        (("--target", "sales", "--horizon", 2, "--min-context", 9), "--min-context is 9, at most"),
        (("--target", "sales", "--horizon", 2, "--group", "sales"), "'sales' is named twice"),
        (("--target", "sales", "--horizon", 2, "--group", "city"), "no column 'city'"),
        (("--target", "sales", "--horizon", 2, "--time", "day"), "'0' stands twice"),
        (("--target", "sales", "--horizon", 900), "has 630 rows; context 8 and horizon 900 need"),
    ],
)
def test_what_is_refused(cli: Cli, shops: Path, words: tuple[object, ...], said: str) -> None:
    target = shops.parent / "m.pt"
    refused(cli("train", "series", shops, "--context", 8, *words, *SMALL, "-o", target), said)
    assert list(shops.parent.iterdir()) == [shops]
