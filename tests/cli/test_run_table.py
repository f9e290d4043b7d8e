"""``loopedge run MODEL -i table.csv -o forecast.csv``: what is written, what is shown, what is refused."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loopedge.runtime.session import Session
from tests.cli.test_run_series import mirror
from tests.table_models import LABELS, TASK, repeating_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

SHOPS = ('the "first", old', "zweite\nZeile")
"""Names of series that a CSV must put in quotes."""


def shops(path: Path, *, wide: float = 0.0) -> Path:
    """Write two series in turns whose values need all digits of a float."""
    generator = np.random.default_rng(7)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["shop", "time", "x", "y"])
        for hour in range(6):
            for shop in SHOPS:
                y, x = wide + generator.normal() / 3, generator.normal() * 1e-6
                table.writerow([shop, f"2024-03-30T{18 + hour % 6:02}:00:00Z", x, repr(y)])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


GROUPED = TASK | {"group": "shop", "time_column": "time"}


def test_a_forecast_is_written_with_names_and_times(cli: Cli, tmp_path: Path) -> None:
    table, target = shops(tmp_path / "t.csv"), tmp_path / "f.csv"
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    outcome = cli("run", model, "-i", table, "-o", target)
    assert outcome.code == 0, outcome.err
    assert target.read_text(encoding="utf-8").partition("\n")[0] == "shop,time,y"
    rows = read(target)
    assert [(row["shop"], row["time"]) for row in rows] == [
        (shop, time) for shop in SHOPS for time in ("2024-03-31T00:00:00Z", "2024-03-31T01:00:00Z")
    ]
    for shop in SHOPS:
        last = [float(row["y"]) for row in read(table) if row["shop"] == shop][-2:]
        written = [float(row["y"]) for row in rows if row["shop"] == shop]
        np.testing.assert_array_equal(np.asarray(written, np.float32), np.asarray(last, np.float32))
    for words in ("'y', 2 steps ahead", "2 series of t.csv, by 'shop'", "2024-03-31T00:00:00Z"):
        assert words in outcome.out


@pytest.mark.parametrize("wide", [False, True])
def test_no_digit_is_lost(cli: Cli, tmp_path: Path, wide: bool) -> None:
    table, target = shops(tmp_path / "t.csv", wide=1e12 if wide else 0.0), tmp_path / "f.csv"
    model = repeating_model(tmp_path / "m.onnx", GROUPED | {"wide": wide})
    assert cli("run", model, "-i", table, "-o", target).code == 0
    session = Session(model)
    exact = session.run(session.expected.read(table).arrays)["outputs"]
    assert exact.dtype == (np.float64 if wide else np.float32)
    texts = [row["y"] for row in read(target)]
    np.testing.assert_array_equal(np.array(texts, exact.dtype), exact.ravel())
    if wide:
        expected = [float(row["y"]) for shop in SHOPS for row in read(table) if row["shop"] == shop]
        assert list(map(float, texts)) == [*expected[4:6], *expected[10:]]
    else:
        assert all(len(text) <= 13 for text in texts)  # as a float32 is written, not a float64


def test_labels_are_written_with_probabilities(cli: Cli, tmp_path: Path) -> None:
    table, target = shops(tmp_path / "t.csv"), tmp_path / "labels.csv"
    model = repeating_model(tmp_path / "m.onnx", LABELS | {"group": "shop", "time_column": "time"})
    outcome = cli("run", model, "-i", table, "-o", target, "--json")
    assert outcome.code == 0, outcome.err
    rows = read(target)
    assert list(rows[0]) == ["shop", "time", "busy", "probability_no", "probability_yes, very"]
    assert [row["time"] for row in rows] == ["2024-03-30T23:00:00Z"] * 2
    for row, shop in zip(rows, SHOPS, strict=True):
        last = next(one for one in reversed(read(table)) if one["shop"] == shop)
        difference = np.float64(np.float32(last["x"])) - np.float64(np.float32(last["y"]))
        assert float(row["probability_yes, very"]) == pytest.approx(1 / (1 + np.exp(-difference)))
        assert row["busy"] == ("yes, very" if difference > 0 else "no")
    found = outcome.json()
    assert found["labels"] == [row["busy"] for row in rows]
    assert found["forecast"]["label"] == "busy"
    assert [one["label"] for one in found["forecast"]["series"]] == found["labels"]


def test_json_says_what_the_file_says(cli: Cli, tmp_path: Path) -> None:
    table, target = shops(tmp_path / "t.csv"), tmp_path / "f.csv"
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    found = cli("run", model, "-i", table, "-o", target, "--json").json()["forecast"]
    assert (found["table"], found["group"], found["time_column"]) == ("t.csv", "shop", "time")
    assert (found["targets"], found["label"]) == (["y"], None)
    said = [
        (one["name"], time, value)
        for one in found["series"]
        for time, value in zip(one["times"], one["values"]["y"], strict=True)
    ]
    assert [(name, time, str(np.float32(value))) for name, time, value in said] == [
        (row["shop"], row["time"], row["y"]) for row in read(target)
    ]
    assert [one["rows"] for one in found["series"]] == [4, 4]


def test_parquet_holds_what_csv_does(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = shops(tmp_path / "t.csv")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    for name in ("f.csv", "f.parquet"):
        assert cli("run", model, "-i", table, "-o", tmp_path / name).code == 0
    stored = parquet.read_table(tmp_path / "f.parquet")
    assert str(stored.schema.field("y").type) == "float"
    assert [{name: str(np.float32(value)) if name == "y" else value for name, value in row.items()} for row in stored.to_pylist()] == read(tmp_path / "f.csv")  # fmt: skip


def test_arrays_are_written_as_before(cli: Cli, tmp_path: Path) -> None:
    table = shops(tmp_path / "t.csv")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    assert cli("run", model, "-i", table, "-o", tmp_path / "f.npz").code == 0
    with np.load(tmp_path / "f.npz") as written:
        assert {name: written[name].shape for name in written} == {
            "outputs": (2, 2, 1),
            "seen": (2, 4, 2),
        }


def test_nothing_is_left_of_what_could_not_be_written(cli: Cli, tmp_path: Path) -> None:
    table, target = shops(tmp_path / "t.csv"), tmp_path / "f.csv"
    clash = GROUPED | {"targets": ["y", "x"], "covariates": [], "group": "shop"}
    model = repeating_model(tmp_path / "m.onnx", clash | {"time_column": None})
    renamed = tmp_path / "step.csv"
    renamed.write_text(table.read_text(encoding="utf-8").replace("shop,time", "step,time", 1))
    model = repeating_model(tmp_path / "m.onnx", clash | {"group": "step", "time_column": None})
    outcome = cli("run", model, "-i", renamed, "-o", target)
    assert outcome.code == 2
    assert "two columns of the forecast would be called 'step'" in outcome.err
    assert not target.exists()
    assert cli("run", model, "-i", renamed, "-o", tmp_path / "f.npz").code == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.csv", "--output"),
        ("f.txt", "unknown kind, .csv or .parquet"),
        ("absent/f.csv", "folder"),
        ("there.csv", "exists already"),
    ],
)
def test_targets_that_are_refused(cli: Cli, tmp_path: Path, name: str, words: str) -> None:
    table = shops(tmp_path / "t.csv")
    (tmp_path / "there.csv").write_text("mine")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    outcome = cli("run", model, "-i", table, "-o", tmp_path / name)
    assert outcome.code == 2
    assert words in outcome.err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_table_of_forecasts_needs_a_table(
    cli: Cli, tmp_path: Path, tiny: Path, ids: Path
) -> None:
    outcome = cli("run", tiny, "-i", ids, "-o", tmp_path / "f.csv")
    assert outcome.code == 2
    assert "would hold the forecasts of a table" in outcome.err
    outcome = cli("run", tiny, "-i", ids, "--decimal", ",")
    assert outcome.code == 2
    assert "--decimal is of tables" in outcome.err


@pytest.mark.parametrize("option", ["--decimal", "--na-values", "--encoding"])
def test_options_of_tables_go_with_no_text(cli: Cli, tiny: Path, option: str) -> None:
    value = {"--decimal": ",", "--na-values": "gone", "--encoding": "cp1252"}[option]
    outcome = cli("run", tiny, "--text", "abc", option, value)
    assert outcome.code == 2
    assert f"{option} goes with --input" in outcome.err


@pytest.mark.long
def test_a_profile_runs_on_the_windows_of_a_table(cli: Cli, tmp_path: Path) -> None:
    with shops(tmp_path / "t.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["third", "2024-03-30T18:00:00Z", 1, 2])
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    outcome = cli(
        "profile", model, "--input", tmp_path / "t.csv", "--runs", 2, "--processes", 1, "--json"
    )
    assert outcome.code == 0, outcome.err
    [run] = outcome.json()["runs"]
    assert (run["batch"], run["sequence"]) == (2, 4)
    assert any(
        note.startswith("1 of 3 series is left out: 'third'") for note in outcome.json()["notes"]
    )


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "pq", "feather"])
def test_a_table_of_numbers_for_a_model_that_knows_no_columns(
    cli: Cli, tmp_path: Path, kind: str
) -> None:
    """Of any kind, its columns in their order, as arrays: a note says so."""
    source, target = tmp_path / f"x.{kind}", tmp_path / "y.npz"
    text, options = b"a;b\n1,5;2\n3;4\n", ["--decimal", ","]
    if kind in {"pq", "feather"}:
        arrow = pytest.importorskip("pyarrow")
        feather = pytest.importorskip("pyarrow.feather")
        parquet = pytest.importorskip("pyarrow.parquet")
        write = parquet.write_table if kind == "pq" else feather.write_feather
        write(arrow.table({"a": [1.5, 3], "b": [2, 4]}), source)
        options = []
    else:
        source.write_bytes(text if kind == "csv" else gzip.compress(text))
    outcome = cli(
        "run", mirror(tmp_path, foreign=True), "-i", source, *options, "-o", target, "--json"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json()["notes"] == [
        f"the model names no columns: those of {source} are taken in their order, a, b"
    ]
    with np.load(target) as written:
        np.testing.assert_array_equal(written["seen"], np.asarray([[[1.5, 2], [3, 4]]], np.float32))


def test_series_of_any_level_are_shown_with_their_own_decimals(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [
        f"{shop},{level * (1 + row / 100)},0,{row**2}"
        for shop, level in (("shed", 1), ("mill", 40000), ("off", -1e-9))
        for row in range(6)
    ]
    table.write_text("shop,y,x,time\n" + "\n".join(rows) + "\n")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    outcome = cli("run", model, "-i", table)
    assert outcome.code == 0, outcome.err
    for words in ("1.0400", "1.0500", "41600", "42000"):
        assert words in outcome.out
    assert "-0 " not in outcome.out
    heads = next(line for line in outcome.out.splitlines() if line.startswith("shop"))
    assert heads.split() == [
        "shop",
        "step",
        "y",
    ]  # squares have no step: the times that follow are not known


@pytest.mark.parametrize("scaling", ["column", "window"])
def test_a_window_without_a_value_of_the_target_is_said(
    cli: Cli, tmp_path: Path, scaling: str
) -> None:
    rows = [f"{shop},{'' if shop == 'b' else row},1" for shop in "ab" for row in range(6)]
    table = tmp_path / "t.csv"
    table.write_text("shop,y,x\n" + "\n".join(rows) + "\n")
    task = TASK | {"group": "shop", "missing": "indicator", "scaling": scaling}
    model = repeating_model(tmp_path / "m.onnx", task)
    outcome = cli("run", model, "-i", table, "--json")
    assert outcome.code == 0, outcome.err
    found = [one["name"] for one in outcome.json()["forecast"]["series"]]
    assert "its last 4 table rows hold no value of 'y'" in outcome.err
    assert found == (["a"] if scaling == "window" else ["a", "b"])


def test_a_series_that_ended_long_ago_is_named(cli: Cli, tmp_path: Path) -> None:
    rows = [
        f"{shop},{row},1,{row}"
        for shop, end in (("a", 20), ("b", 9), ("c", 19))
        for row in range(end)
    ]
    table = tmp_path / "t.csv"
    table.write_text("shop,y,x,time\n" + "\n".join(rows) + "\n")
    outcome = cli("run", repeating_model(tmp_path / "m.onnx", GROUPED), "-i", table)
    assert outcome.code == 0, outcome.err
    assert (
        "1 series ends long before 'a' at '19': 'b' at '8', and what is said of it" in outcome.err
    )
    table.write_text("shop,y,x,time\n" + "\n".join(row for row in rows if row[0] != "b") + "\n")
    assert "long before" not in cli("run", tmp_path / "m.onnx", "-i", table).err


def test_times_off_the_grid_of_training_name_no_option_of_training(
    cli: Cli, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("y,x,time\n" + "".join(f"1,1,2024-01-01T0{row}:0{row}\n" for row in range(9)))
    model = repeating_model(tmp_path / "m.onnx", TASK | {"time_column": "time", "frequency": "h"})
    outcome = cli("run", model, "-i", table)
    assert outcome.code == 2
    assert "is off the grid of --frequency h" in outcome.err
    assert "hint: write the times in steps of 1 hour, as those of training" in outcome.err


@pytest.mark.parametrize(("name", "better"), [("f.txt", "f.csv"), ("f.csv.gz", "f.csv")])
def test_other_kinds_of_targets_are_refused_for_tables(
    cli: Cli, tmp_path: Path, name: str, better: str
) -> None:
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    outcome = cli("run", model, "-i", shops(tmp_path / "t.csv"), "-o", tmp_path / name)
    assert outcome.code == 2
    assert ".csv or .parquet is needed, or .npz for arrays" in outcome.err
    assert f"hint: --output {tmp_path / better}" in outcome.err


def test_what_is_not_shown_is_counted(cli: Cli, tmp_path: Path) -> None:
    rows = [f"s{number},1,{row}" for number in range(30) for row in range(4)]
    table = tmp_path / "t.csv"
    table.write_text("shop,y,x\n" + "\n".join(rows) + "\n")
    labels = repeating_model(tmp_path / "m.onnx", LABELS | {"group": "shop"})
    assert "and 6 series more, see --json" in cli("run", labels, "-i", table).out
    values = repeating_model(tmp_path / "v.onnx", TASK | {"group": "shop"})
    assert "and 36 steps more, see --json" in cli("run", values, "-i", table).out


@pytest.mark.parametrize(("scaling", "said"), [("column", True), ("window", False)])
def test_values_far_from_those_of_training_are_named(
    cli: Cli, tmp_path: Path, scaling: str, said: bool
) -> None:
    table = tmp_path / "t.csv"
    levels = (("a", 7.5), ("b", 7500.0), ("c", 7501.0))
    rows = [f"{shop},{level},8" for shop, level in levels for _ in range(4)]
    table.write_text("shop,y,x\n" + "\n".join(rows) + "\n")
    task = TASK | {"group": "shop", "scale": [2.0, 1.0], "scaling": scaling}
    outcome = cli("run", repeating_model(tmp_path / "m.onnx", task), "-i", table)
    assert outcome.code == 0, outcome.err
    words = (  # (7500 - 7) / 2
        "column 'y' holds 7,500 in the window of 'b', and of 1 more series: 3,746 standard deviations from 7, the mean"
    )
    assert (words in outcome.err) == said
    assert ("never trained" in outcome.err) == said


def test_an_output_that_stands_high_is_shown_with_digits_that_tell_it_apart(
    cli: Cli, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("y,x\n" + "".join(f"{1_000_000 + row},{1_000_000}\n" for row in range(4)))
    model = repeating_model(tmp_path / "m.onnx", {**TASK, "mean": [1e6, 1e6]})
    outcome = cli("run", model, "-i", table)
    assert outcome.code == 0, outcome.err
    low, mean, high = np.asarray([1_000_002, 1_000_002.5, 1_000_003])
    for value in (low, mean, high):
        assert f"{value:.2f}" in outcome.out


def test_a_column_that_was_constant_has_no_deviation_to_count_in(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("y,x\n" + "".join(f"{row},245\n" for row in range(4)))
    task = {**TASK, "mean": [0.0, 230.0], "scale": [9.0, 1.0]}
    outcome = cli("run", repeating_model(tmp_path / "m.onnx", task), "-i", table)
    assert outcome.code == 0, outcome.err
    assert "column 'x' holds 245 in the window: far from 230, the mean of training" in outcome.err
