"""A table through a model that repeats what it sees: the last window of each series, computed by hand from the file."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loopedge
from loopedge.artifact.artifact import open_artifact
from loopedge.data.tables.format import TableFormat
from loopedge.errors import InputError
from loopedge.runtime.session import Session
from loopedge.tasks.series import SeriesTask
from loopedge_calibration.samples import Samples
from tests.table_models import LABELS, TASK, repeating_model
from tests.unit.test_calibration_data import small_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GROUPED = TASK | {"group": "shop", "time_column": "day"}
SHORT = {"min_context": 2}


def write_table(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def shops(path: Path, *, days: int = 7, order: Sequence[str] = ("north", "süd, 2")) -> Path:
    """Write two shops in turns; the second opens a day later, its name needs quotes."""
    generator = np.random.default_rng(3)
    rows = [
        (f"2024-01-{day:02}", shop, round(generator.normal(50, 9), 2), round(generator.normal(), 3))
        for day in range(1, days + 1)
        for number, shop in enumerate(order)
        if day > number
    ]
    return write_table(path, ("day", "shop", "y", "x"), rows)


def last_rows(path: Path, shop: str, count: int) -> np.ndarray:
    """Return y and x of a shop's last table rows, read by hand: float32 (count, 2)."""
    with path.open(newline="", encoding="utf-8") as file:
        found = [
            (float(row["y"]), float(row["x"]))
            for row in csv.DictReader(file)
            if row["shop"] == shop
        ]
    return np.array(found[-count:], np.float64).astype(np.float32)


def seen_by(model: Path, table: Path) -> np.ndarray:
    """Return what a model was fed, as it gives it back."""
    session = Session(model)
    seen: np.ndarray = session.run(session.expected.read(table).arrays)["seen"]
    return seen


def test_the_last_window_of_each_of_several_series(tmp_path: Path) -> None:
    table = shops(tmp_path / "t.csv")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    found = loopedge.forecast(model, table)
    windows = np.stack([last_rows(table, shop, 4) for shop in ("north", "süd, 2")])
    np.testing.assert_array_equal(seen_by(model, table), windows)
    assert found.values is not None
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, windows[:, -2:, :1])
    assert found.series == ("north", "süd, 2")
    assert found.times == (("2024-01-08", "2024-01-09"),) * 2
    assert (found.rows, found.notes, found.targets) == ((4, 4), (), ("y",))
    assert repr(found) == "<Forecast of y: 2 series of t.csv, 2 steps ahead>"


def test_a_session_that_is_open_will_do(tmp_path: Path) -> None:
    table = shops(tmp_path / "t.csv")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    session = Session(model, threads=1)
    for _ in range(2):
        np.testing.assert_array_equal(
            loopedge.forecast(session, table).values, loopedge.forecast(model, table).values
        )


@pytest.mark.parametrize("kind", ["csv.gz", "parquet"])
def test_other_kinds_of_files_hold_the_same(tmp_path: Path, kind: str) -> None:
    table = shops(tmp_path / "t.csv")
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    other = tmp_path / f"t.{kind}"
    if kind == "parquet":
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns |= {name: [float(cell) for cell in columns[name]] for name in ("y", "x")}
        parquet.write_table(arrow.table(columns), other)
    else:
        other.write_bytes(gzip.compress(table.read_bytes()))
    expected, found = loopedge.forecast(model, table), loopedge.forecast(model, other)
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.series, found.times) == (expected.series, expected.times)


def test_columns_stand_in_any_order_and_others_are_left_out(tmp_path: Path) -> None:
    rows = [(day, "text", -day, 10.5 * day, "yes") for day in range(1, 9)]
    table = write_table(tmp_path / "t.csv", ("day", "remark", "x", "y", "busy"), rows)
    found = loopedge.forecast(
        repeating_model(tmp_path / "m.onnx", TASK | {"time_column": "day"}), table
    )
    np.testing.assert_array_equal(found.values, np.asarray([[[10.5 * 7], [10.5 * 8]]], np.float32))
    assert (found.times, found.notes) == ((("9", "10"),), ())
    found = loopedge.forecast(repeating_model(tmp_path / "n.onnx", TASK), table)
    assert found.notes == (
        "columns that the model was not trained on are left out: 'day', 'remark', 'busy'",
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["2024-01-02", "2024-01-01"], "'2024-01-01' is earlier than '2024-01-02'"),
        (["2024-01-01", "2024-01-01"], "'2024-01-01' stands twice"),
        (["2024-01-01", "yesterday"], "'yesterday' is"),
        (["2024-01-01", ""], "the time is missing"),
    ],
)
def test_what_training_refuses_is_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    times = ["2023-12-30", "2023-12-31", *rows, "2024-02-01"]
    table = write_table(tmp_path / "t.csv", ("day", "y", "x"), [(time, 1, 2) for time in times])
    model = repeating_model(tmp_path / "m.onnx", TASK | {"time_column": "day"})
    with pytest.raises(InputError) as refused:
        loopedge.forecast(model, table)
    assert words in str(refused.value)
    assert "row " in str(refused.value)


def test_newest_first_is_refused(tmp_path: Path) -> None:
    rows = [(f"2024-01-{day:02}", day, day) for day in range(9, 0, -1)]
    table = write_table(tmp_path / "t.csv", ("day", "y", "x"), rows)
    model = repeating_model(tmp_path / "m.onnx", TASK | {"time_column": "day"})
    with pytest.raises(InputError, match="earlier than"):
        loopedge.forecast(model, table)


def test_two_series_in_one_table_without_their_column(tmp_path: Path) -> None:
    """A table of one series may lack the column that names it; two of them mixed stand out by their times."""
    model = repeating_model(tmp_path / "m.onnx", GROUPED)
    with shops(tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["day"], row["y"], row["x"]) for row in csv.DictReader(file)]
    mixed = write_table(tmp_path / "mixed.csv", ("day", "y", "x"), rows)
    with pytest.raises(InputError, match="stands twice") as refused:
        loopedge.forecast(model, mixed)
    assert "mixed.csv has no column 'shop', which named the series" in str(refused.value.hint)
    alone = write_table(tmp_path / "alone.csv", ("day", "y", "x"), rows[1::2])
    found = loopedge.forecast(model, alone)
    np.testing.assert_array_equal(
        found.values, np.asarray([[[float(y)] for _, y, _ in rows[1::2][-2:]]], np.float32)
    )
    assert found.group is None
    assert found.notes == (
        "alone.csv has no column 'shop', which named the series in training: all of its rows are taken as one series",
    )


def test_a_table_without_its_times_says_that_the_order_is_not_checked(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ("y", "x"), [(day, day) for day in range(6)])
    found = loopedge.forecast(
        repeating_model(tmp_path / "m.onnx", TASK | {"time_column": "day"}), table
    )
    assert found.notes == (
        "t.csv has no column 'day', by which training checked the order of the rows: their order is not checked",
    )
    assert (found.times, found.header) == ((), ("step", "y"))
    assert [row[0] for row in found.records()] == [1, 2]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_short_series_are_padded_as_in_training_or_left_out(tmp_path: Path, rows: int) -> None:
    values = np.arange(18.0).reshape(9, 2)[:rows] / 7
    table = write_table(tmp_path / "t.csv", ("y", "x"), values.tolist())
    model = repeating_model(tmp_path / "m.onnx", TASK | SHORT)
    if rows < 2:
        with pytest.raises(InputError) as refused:
            loopedge.forecast(model, table)
        assert str(refused.value) == (
            "t.csv: 1 table row is too few, the model was trained on 2 at least"
        )
        return
    kept = min(rows, 4)
    window = np.concatenate([np.tile([7.0, 8.0], (4 - kept, 1)), values[-4:]]).astype(np.float32)
    session = Session(model)
    read = session.expected.read(table)
    outputs = session.run(read.arrays)
    np.testing.assert_array_equal(outputs["seen"], window[np.newaxis])
    np.testing.assert_array_equal(outputs["kept"], [[0] * (4 - kept) + [1] * kept])
    padded = (f"{kept} table rows are padded on the left to the context of 4, as in training",)
    assert read.notes == (padded if kept < 4 else ())


def test_a_model_that_pads_nothing_needs_its_context(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ("y", "x"), [(1, 2), (3, 4), (5, 6)])
    with pytest.raises(InputError) as refused:
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", TASK), table)
    assert str(refused.value) == (
        "t.csv: 3 table rows are too few, the model was trained on windows of 4"
    )
    assert refused.value.hint == "name a longer table, or train the model with min_context=3"


def test_short_series_among_others_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [(day, shop, day, -day) for day in range(6) for shop in "abc" if shop == "b" or day > 3]
    table = write_table(tmp_path / "t.csv", ("day", "shop", "y", "x"), rows)
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", GROUPED), table)
    assert found.series == ("b",)
    np.testing.assert_array_equal(found.values, [[[4], [5]]])
    [note] = found.notes
    assert note.startswith(
        "2 of 3 series are left out: 'a': 2 table rows are too few, the model was trained on windows of 4; 'c': 2 "
    )
    none = write_table(
        tmp_path / "none.csv", ("day", "shop", "y", "x"), [row for row in rows if row[1] != "b"]
    )
    with pytest.raises(InputError, match=r"none\.csv: 'a': 2 table rows .* none of the 2 series"):
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", GROUPED), none)


def missing(path: Path, *places: tuple[int, str], rows: int = 8) -> Path:
    """Write y = 10 day and x = day, but for some cells."""
    lines = [
        (
            day,
            *(
                "" if (day, name) in places else value
                for name, value in (("y", 10 * day), ("x", day))
            ),
        )
        for day in range(rows)
    ]
    return write_table(path, ("day", "y", "x"), lines)


def test_missing_values_outside_of_the_window_do_not_count(tmp_path: Path) -> None:
    table = missing(tmp_path / "t.csv", (0, "y"), (3, "x"))
    model = repeating_model(tmp_path / "m.onnx", TASK)
    np.testing.assert_array_equal(loopedge.forecast(model, table).values, [[[60], [70]]])


def test_a_missing_value_in_the_window_is_refused(tmp_path: Path) -> None:
    table = missing(tmp_path / "t.csv", (5, "x"))
    with pytest.raises(InputError) as refused:
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", TASK), table)
    assert str(refused.value) == "t.csv: row 6 (line 7), column 'x': the value is missing"
    assert "indicator" in str(refused.value.hint)


def test_missing_values_are_filled_within_the_history(tmp_path: Path) -> None:
    """Also where the gap begins before the window: the line starts at the value before it."""
    task = TASK | {"missing": "interpolate"}
    table = missing(tmp_path / "t.csv", (3, "y"), (4, "y"), (6, "x"))
    model = repeating_model(tmp_path / "m.onnx", task)
    expected = [[[10 * day, day] for day in (4, 5, 6, 7)]]
    np.testing.assert_allclose(seen_by(model, table), expected, rtol=1e-6)
    last = missing(tmp_path / "last.csv", (7, "x"))
    with pytest.raises(
        InputError,
        match=r"last\.csv: row 8 \(line 9\), column 'x': the value is missing in the last",
    ):
        loopedge.forecast(model, last)


def test_missing_values_are_left_to_a_model_that_takes_them(tmp_path: Path) -> None:
    task = TASK | {"missing": "indicator"}
    places = [(day, "x") for day in range(4, 8)]  # a sensor that has died
    table = missing(tmp_path / "t.csv", (6, "y"), *places)
    seen = seen_by(repeating_model(tmp_path / "m.onnx", task), table)
    nan = np.nan
    np.testing.assert_array_equal(seen, [[[40, nan], [50, nan], [nan, nan], [70, nan]]])


def test_a_table_without_a_header_holds_the_columns_in_the_order_of_training(
    tmp_path: Path,
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("\n".join(f"{10 * day},{day}" for day in range(6)))
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", GROUPED), table)
    np.testing.assert_array_equal(found.values, [[[40], [50]]])
    [note] = found.notes
    assert note.startswith(
        "t.csv has no header: its columns are taken in the order of training, y, x"
    )
    assert "its rows are taken as one series, their order is not checked" in note
    table.write_text("1,2,3\n" * 6)
    with pytest.raises(InputError, match="has no header and 3 columns, without a header 2 columns"):
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", GROUPED), table)


def test_exactly_the_context_gives_the_numbers_of_the_array(tmp_path: Path) -> None:
    """As before: four table rows are the window, bit for bit."""
    generator = np.random.default_rng(0)
    values = generator.normal(1e3, 1, (4, 2))
    table = write_table(
        tmp_path / "t.csv", ("y", "x"), [list(map(repr, map(float, row))) for row in values]
    )
    model = repeating_model(tmp_path / "m.onnx", TASK)
    array = Session(model).run(values[np.newaxis].astype(np.float32))["outputs"]
    np.testing.assert_array_equal(loopedge.forecast(model, table).values, array)
    bare = tmp_path / "bare.csv"
    bare.write_text(table.read_text().partition("\n")[2])
    np.testing.assert_array_equal(loopedge.forecast(model, bare).values, array)


def test_names_that_are_numbers_are_a_header_where_they_are_known(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("2020,2021\n" + "1,2\n" * 4)
    task = TASK | {"targets": ["2021"], "covariates": ["2020"]}
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", task), table)
    np.testing.assert_array_equal(found.values, [[[2], [2]]])
    assert found.notes == ()


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("y,z", ["1,2"], "t.csv: the header lacks 'x'; the model was trained on y, x"),
        ("a,b", ["1,2"], "t.csv: the header lacks 'y', 'x'; the model was trained on y, x"),
        ("y,x", [], "holds no rows"),
        ("y,x", ["1,2", "3,four"], "row 2 (line 3), column 'x': 'four' is not a number"),
        ("y,x", ["1,1e39"] * 4, "row 1 (line 2), column 'x': '1e39' is too large for float32"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, name: str, rows: list[str], words: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text("\n".join([name, *rows]) + "\n")
    with pytest.raises(InputError) as refused:
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", TASK), table)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_is_read_as_the_model_remembers_and_other_words_win(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("y;x\n" + "".join(f"{day},5;{day}\n" for day in range(6)))
    model = repeating_model(tmp_path / "m.onnx", TASK | {"form": {"decimal": ","}})
    expected = [[[4.5], [5.5]]]
    np.testing.assert_array_equal(loopedge.forecast(model, table).values, expected)
    table.write_text(table.read_text().replace(",", "."))
    with pytest.raises(InputError):
        loopedge.forecast(model, table)
    for form in ({"decimal": "."}, TableFormat()):
        found = loopedge.forecast(model, table, form=form)
        np.testing.assert_array_equal(found.values, expected)


def test_labels_with_their_probabilities(tmp_path: Path) -> None:
    table = shops(tmp_path / "t.csv")
    task = LABELS | {"group": "shop", "time_column": "day"}
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", task), table)
    logits = np.stack([last_rows(table, shop, 1)[0] for shop in ("north", "süd, 2")])
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, weights / weights.sum(axis=1, keepdims=True))
    assert found.labels == tuple(LABELS["classes"][place] for place in logits.argmax(axis=1))
    assert found.header == ("shop", "day", "busy", "probability_no", "probability_yes, very")
    assert [row[:2] for row in found.records()] == [
        ("north", "2024-01-07"),
        ("süd, 2", "2024-01-07"),
    ]
    assert found.values is None


def test_a_model_of_no_table_forecasts_none() -> None:
    from tests.unit.test_model_inputs import TINY

    with pytest.raises(InputError, match="was not trained on a table"):
        loopedge.forecast(TINY, TINY.with_name("t.csv"))


def test_a_dynamic_model_runs_each_series_alone(tmp_path: Path) -> None:
    """Its ranges are those of all that runs together: a forecast would hang on the other series of the table."""
    table = shops(tmp_path / "t.csv")
    sizes: list[int] = []
    for scheme, expected in (("dynamic", [1, 1]), ("static", [2])):
        model = repeating_model(tmp_path / "m.onnx", GROUPED, quantization={"scheme": scheme})
        session = Session(model)
        run = session.run

        def counted(feeds: Any, *args: Any, run: Any = run, **words: Any) -> Any:
            sizes.append(len(feeds["inputs"]))
            return run(feeds, *args, **words)

        session.run = counted  # type: ignore[method-assign, assignment]
        assert loopedge.forecast(session, table).series == ("north", "süd, 2")
        assert sizes == expected
        sizes.clear()


INTERVALS: dict[str, Any] = {
    "unit": "raw",
    "still_unit": [0.25],
    "windows": 60,
    "levels": [
        {"level": 80, "low": [[-1.5], [-2.0]], "high": [[1.5], [2.0]]},
        {"level": 95, "low": [[-3.0], [-4.0]], "high": [[3.0], [5.0]]},
    ],
}


@pytest.mark.parametrize("unit", ["raw", "window"])
def test_intervals_stand_around_each_step(tmp_path: Path, unit: str) -> None:
    """In raw units, or in the deviation of what stands in each window; a window that never changes has its own."""
    rows = [(day, shop, y, day) for day in range(5) for shop, y in (("a", day * day), ("b", 3))]
    rows += [(day, "c", 7 * day, day) for day in range(3)]  # padded
    table = write_table(tmp_path / "t.csv", ("day", "shop", "y", "x"), rows)
    task = GROUPED | SHORT | {"intervals": INTERVALS | {"unit": unit}}
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", task), table)
    middle = np.array([[9.0, 16], [3, 3], [7, 14]])
    np.testing.assert_array_equal(found.values, middle[:, :, None])
    units = np.array([[np.std([1, 4, 9, 16])], [0.25], [np.std([0, 7, 14])]])
    units = units if unit == "window" else np.ones_like(units)
    assert list(found.intervals) == [80, 95]
    for level, (low, high) in {80: ([-1.5, -2], [1.5, 2]), 95: ([-3, -4], [3, 5])}.items():
        np.testing.assert_allclose(found.intervals[level][0][:, :, 0], middle + units * low)
        np.testing.assert_allclose(found.intervals[level][1][:, :, 0], middle + units * high)
    assert found.header == ("shop", "day", "y", "y_lo80", "y_hi80", "y_lo95", "y_hi95")
    first = next(iter(found.records()))
    np.testing.assert_allclose(
        [float(cell) for cell in first[2:]],
        [9, *(9 + units[0, 0] * side for side in (-1.5, 1.5, -3, 3))],
    )
    plain = found.to_json()["series"][2]["intervals"]["95"]["y"]
    np.testing.assert_allclose(plain["high"], middle[2] + units[2] * [3, 5])


def minutes(path: Path, *, gap: int | None, rows: int = 8) -> Path:
    """Write y every quarter of an hour; before row ``gap`` 30 minutes are missing."""
    lines = []
    for row in range(rows):
        at = 15 * row + (30 if gap is not None and row >= gap else 0)
        lines.append((f"2024-05-01 {9 + at // 60:02}:{at % 60:02}", 10 * row, row))
    return write_table(path, ("time", "y", "x"), lines)


TIMED = TASK | {"time_column": "time", "step": "15min"}


@pytest.mark.parametrize("gap", [4, 3])
def test_a_gap_behind_the_window_does_not_matter(tmp_path: Path, gap: int) -> None:
    table = minutes(tmp_path / "t.csv", gap=gap)
    for rule in ("split", "refuse"):
        model = repeating_model(tmp_path / "m.onnx", TIMED | {"gaps": rule})
        found = loopedge.forecast(model, table)
        np.testing.assert_array_equal(found.values, [[[60], [70]]])
        assert (found.rows, found.notes) == ((4,), ())
        assert found.times == (("2024-05-01 11:30", "2024-05-01 11:45"),)


def test_no_window_crosses_a_gap(tmp_path: Path) -> None:
    """What stands behind it is too short for a model that pads nothing, and is padded for one that does."""
    table = minutes(tmp_path / "t.csv", gap=5)
    with pytest.raises(InputError) as refused:
        loopedge.forecast(repeating_model(tmp_path / "m.onnx", TIMED | {"gaps": "split"}), table)
    assert str(refused.value) == (
        "t.csv: 3 table rows after the gap before '2024-05-01 10:45' are too few, the model was trained on windows of 4 "
        "and does not see across gaps"
    )
    assert "gaps" in str(refused.value.hint)
    model = repeating_model(tmp_path / "n.onnx", TIMED | SHORT | {"gaps": "split"})
    np.testing.assert_array_equal(
        seen_by(model, table), np.asarray([[[7, 8], [50, 5], [60, 6], [70, 7]]], np.float32)
    )
    found = loopedge.forecast(model, table)
    assert found.rows == (3,)
    assert found.notes == (
        "the window begins after a gap in its times, at '2024-05-01 10:45': windows do not cross gaps",
        "3 table rows are padded on the left to the context of 4, as in training",
    )
    refusing = repeating_model(tmp_path / "o.onnx", TIMED | SHORT | {"gaps": "refuse"})
    with pytest.raises(InputError, match="there is a gap in the times of its window, before '2024"):
        loopedge.forecast(refusing, table)


def test_a_gap_is_crossed_where_training_crossed_it(tmp_path: Path) -> None:
    table = minutes(tmp_path / "t.csv", gap=6)
    found = loopedge.forecast(
        repeating_model(tmp_path / "m.onnx", TIMED | {"gaps": "cross"}), table
    )
    np.testing.assert_array_equal(found.values, [[[60], [70]]])
    [note] = found.notes
    assert "1 gap" in note


def test_a_grid_inserts_the_rows_that_are_missing(tmp_path: Path) -> None:
    """Two rows in the gap of the window: filled along a line, or left to a model that takes missing values."""
    table = minutes(tmp_path / "t.csv", gap=6)
    grid = TIMED | {"frequency": "15min"}
    line = repeating_model(tmp_path / "m.onnx", grid | {"missing": "interpolate"})
    y = [50 + 10 * 1 / 3, 50 + 10 * 2 / 3, 60, 70]
    np.testing.assert_allclose(seen_by(line, table)[0, :, 0], y, rtol=1e-6)
    marked = repeating_model(tmp_path / "n.onnx", grid | {"missing": "indicator"})
    np.testing.assert_array_equal(seen_by(marked, table)[0, :, 0], [np.nan, np.nan, 60, 70])
    plain = repeating_model(tmp_path / "o.onnx", grid)
    with pytest.raises(
        InputError, match=r"at '2024-05-01 10:30', column 'y': the value is missing"
    ):
        loopedge.forecast(plain, table)
    far = minutes(tmp_path / "far.csv", gap=4)  # what was inserted stands before the window
    np.testing.assert_array_equal(loopedge.forecast(plain, far).values, [[[60], [70]]])


def test_other_steps_than_those_of_training_are_named(tmp_path: Path) -> None:
    rows = [(f"2024-05-01 {hour:02}:00", hour, hour) for hour in range(6)]
    table = write_table(tmp_path / "t.csv", ("time", "y", "x"), rows)
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", TIMED), table)
    assert found.times == (("2024-05-01 06:00", "2024-05-01 07:00"),)
    assert found.notes == (
        "the rows of t.csv follow each other by 1 hour, those of training by 15 minutes: the model was not trained on "
        "such steps",
    )


def test_one_row_is_followed_by_the_steps_of_training(tmp_path: Path) -> None:
    table = minutes(tmp_path / "t.csv", gap=None, rows=1)
    task = TIMED | {"min_context": 1}
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", task), table)
    assert found.times == (("2024-05-01 09:15", "2024-05-01 09:30"),)


@pytest.mark.parametrize(
    ("times", "ahead"),
    [
        (["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"], ["2024-06", "2024-07"]),
        (["2023-09-30", "2023-10-31", "2023-11-30", "2023-12-31"], ["2024-01-31", "2024-02-29"]),
        (["28.02.2024", "29.02.2024", "01.03.2024", "02.03.2024"], ["03.03.2024", "04.03.2024"]),
        (["5", "7.5", "10", "12.5"], ["15.0", "17.5"]),
        (
            [
                f"2024-03-3{day}T0{hour}:00:00+01:00"
                for day, hour in ((1, 0), (1, 1), (1, 2), (1, 3))
            ],
            ["2024-03-31T04:00:00+01:00", "2024-03-31T05:00:00+01:00"],
        ),
        (["2024-01-01", "2024-01-02", "2024-01-09", "2024-01-10", "2024-02-20"], []),
    ],
)
def test_times_are_written_on_as_the_table_writes_them(
    tmp_path: Path, times: list[str], ahead: list[str]
) -> None:
    table = write_table(tmp_path / "t.csv", ("t", "y", "x"), [(time, 1, 2) for time in times])
    form = {"time_format": "%d.%m.%Y"} if "." in times[0] and len(times[0]) > 4 else {}
    task = TASK | {"time_column": "t", "gaps": "cross", "form": form}
    found = loopedge.forecast(repeating_model(tmp_path / "m.onnx", task), table)
    assert list(found.times[0] if found.times else ()) == ahead
    assert found.header[0] == ("t" if ahead else "step")


def test_quantizing_reads_the_table_through_the_task(tmp_path: Path) -> None:
    """Its windows are those that training cuts, of every series; what is to be known of the table is said."""
    rows = [
        (f"2024-01-01 {hour:02}:{minute:02}", shop, hour * 60 + minute + (shop == "b"), hour)
        for hour in range(20)
        for minute in (0, 15, 30, 45)
        for shop in "ab"
    ]
    rows.append(("2024-01-01 00:00", "c", 1, 2))
    table = write_table(tmp_path / "t.csv", ("time", "shop", "y", "x"), rows)
    task = SeriesTask.from_file(
        table,
        targets=["y"],
        covariates=["x"],
        context=4,
        horizon=2,
        time_column="time",
        group="shop",
    )
    model = open_artifact(repeating_model(tmp_path / "m.onnx", task.describe()))
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    for source in (table, packed):
        samples = Samples(source, model, samples=1000)
        assert samples.notes == task.notes
        assert any("1 of 3 series" in note for note in samples.notes)
        fed = np.concatenate([batch.feeds["inputs"] for batch in samples.calibrating])
        batches = task.evaluation("train", 64, 1000)
        np.testing.assert_array_equal(fed, np.concatenate([batch.inputs for batch in batches]))
        assert all(note in samples.held_out(calibrates=True).notes for note in samples.notes)
    hourly = write_table(tmp_path / "h.csv", ("time", "shop", "y", "x"), rows[::8])
    assert any(
        note.startswith(
            "the rows of h.csv follow each other by 1 hour, those of training by 15 minutes"
        )
        for note in Samples(hourly, model, samples=8).notes
    )
    few = write_table(tmp_path / "few.csv", ("time", "shop", "y", "x"), rows[:20])
    with pytest.raises(
        InputError, match=r"has 10 rows; context 4 and horizon 2 need \d+ for training"
    ):
        Samples(few, model, samples=8)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_model_without_a_task_calibrates_on_the_columns_in_their_order(
    tmp_path: Path, kind: str
) -> None:
    source = tmp_path / f"x.{kind}"
    values = np.random.default_rng(2).normal(size=(9, 4)).round(3)
    text = "\n".join(["d,c,b,a", *(",".join(map(str, row)) for row in values)])
    if kind == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(dict(zip("dcba", values.T, strict=True))), source)
    else:
        source.write_bytes(text.encode() if kind == "csv" else gzip.compress(text.encode()))
    samples = Samples(source, open_artifact(small_model(tmp_path / "m.onnx")), samples=8)
    [batch] = samples.calibrating
    np.testing.assert_array_equal(batch.feeds["x"], values[np.newaxis].astype(np.float32))
    assert samples.notes == (
        f"the model names no columns: those of {source} are taken in their order, d, c, b, a",
    )


def test_a_form_that_is_none_is_one_line(tmp_path: Path) -> None:
    table, model = shops(tmp_path / "t.csv"), repeating_model(tmp_path / "m.onnx", GROUPED)
    for form, message in (
        (",", "form is ','"),
        ({"decimals": ","}, "form has no field 'decimals'"),
    ):
        with pytest.raises(InputError, match=message):
            loopedge.forecast(model, table, form=form)  # type: ignore[arg-type]  # as a user may
