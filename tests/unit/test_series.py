"""Series from CSV files: what is read, how it is split, what is refused and where."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.season import find_season
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.splits import rows_needed, split_bounds
from loopedge.tasks.task import SPLITS, task_from_dict

SUNSPOTS = Path(__file__).parents[2] / "examples" / "data" / "sunspots.csv"


def write(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def ramp(rows: int, *, missing: tuple[int, ...] = ()) -> Columns:
    """Row r holds r and 10 r; the first column misses some."""
    values = np.arange(rows, dtype=np.float64)[:, None] * [1, 10]
    observed = np.ones((rows, 2), bool)
    observed[list(missing), 0] = False
    return Columns(names=("y", "x"), values=values, observed=observed)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 60))
def test_no_target_of_one_split_is_seen_by_an_earlier_one(
    context: int, horizon: int, more: int
) -> None:
    rows = rows_needed(context, horizon) + more
    task = SeriesTask(ramp(rows), context=context, horizon=horizon)
    bounds = split_bounds(rows)
    seen = set()
    for split in SPLITS:
        for batch in task.evaluation(split, 7, 10_000):
            assert batch.inputs.shape[1:] == (context, 2)
            assert batch.targets.shape[1:] == (horizon, 1)
            rows_of_targets = batch.targets[:, :, 0]
            assert rows_of_targets.min() >= bounds[split].first
            assert rows_of_targets.max() < bounds[split].end
            # The target follows the inputs at once: row numbers are the values.
            np.testing.assert_array_equal(batch.inputs[:, -1, 0] + 1, rows_of_targets[:, 0])
            if split == "train":
                assert batch.inputs.max() <= 10 * bounds["train"].end
        seen.add(task.available(split))
    assert min(seen) >= 1


@given(st.integers(1, 40), st.integers(1, 20))
def test_the_rows_needed_are_the_least_that_do(context: int, horizon: int) -> None:
    needed = rows_needed(context, horizon)
    SeriesTask(ramp(needed), context=context, horizon=horizon)
    with pytest.raises(InputError, match=rf"has {needed - 1} rows.* need {needed} "):
        SeriesTask(ramp(needed - 1), context=context, horizon=horizon)


def test_scaling_is_fitted_on_training_rows_alone() -> None:
    columns = ramp(100)
    before = SeriesTask(columns, context=4, horizon=2).scaling()
    columns.values[70:] = 1e6
    after = SeriesTask(columns, context=4, horizon=2).scaling()
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.input_mean, after.input_mean)
    np.testing.assert_allclose(after.input_mean, [34.5, 345.0])
    np.testing.assert_allclose(after.input_scale, np.std(np.arange(70)) * np.array([1, 10]))
    np.testing.assert_array_equal(after.output_mean, after.input_mean[:1])


def test_a_constant_column_gets_scale_one() -> None:
    columns = ramp(100)
    columns.values[:, 1] = 0.1
    scaling = SeriesTask(columns, context=4, horizon=2).scaling()
    assert scaling is not None
    assert scaling.input_scale[1] == 1.0


def test_a_filled_value_is_no_target_and_gives_no_target_away() -> None:
    missing = (20, 21, 40, 80, 95)
    task = SeriesTask(ramp(100, missing=missing), context=4, horizon=3, missing="interpolate")
    for split in SPLITS:
        for batch in task.evaluation(split, 8, 1000):
            assert not np.isin(batch.inputs[:, -1, 0], missing).any()
            assert not np.isin(batch.targets[~np.isnan(batch.targets)], missing).any()
            assert (~np.isnan(batch.targets)).any(axis=(1, 2)).all()
    outputs = np.zeros((2, 3, 1), np.float32)
    targets = np.array([3, np.nan, 4, np.nan, np.nan, 0], np.float32).reshape(2, 3, 1)
    scores = task.score(outputs, targets)
    assert scores == {"rmse": pytest.approx((25 / 3) ** 0.5), "mae": pytest.approx(7 / 3)}


def test_gaps_are_filled_along_a_straight_line(tmp_path: Path) -> None:
    gaps = {3: "", 4: "NA", 5: "NaN", 59: "?"}
    text = "t;y\n" + "".join(f"{r};{gaps.get(r, 2 * r)}\n" for r in range(60))
    options = {"targets": ["y"], "context": 4, "horizon": 2}
    with pytest.raises(InputError, match=r"row 4 \(line 5\), column 'y': .*missing \(4 values"):
        SeriesTask.from_file(write(tmp_path, text), **options)  # type: ignore[arg-type]
    task = SeriesTask.from_file(write(tmp_path, text), **options, missing="interpolate")  # type: ignore[arg-type]
    expected = 2.0 * np.arange(60)
    expected[59] = 116
    np.testing.assert_allclose(task.columns.values[:, 0], expected)
    assert task.columns.observed.sum() == 56


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("t,z\n1,2\n", "no column 'y'; the columns are t, z"),
        ("t,y\n1,2\n2,much\n", r"row 2 \(line 3\), column 'y': 'much' is not a number"),
        ("t,y\n1,2\n\n2,1_000\n", r"row 2 \(line 4\), column 'y': '1_000' is not a number"),
        ("t,y\n1,inf\n", "'inf' is too large"),
        ("t,y\n1,1e39\n", "'1e39' is too large"),
        ("t,y\n1\n", r"row 1 \(line 2\) has 1 values, the header has 2"),
        ("t,y\n1,\n2,\n", "column 'y' holds no value at all"),
        ("y,y\n1,2\n", "column 'y' stands 2 times"),
        ("t,y\n1,2\n2,3\n", "has 2 rows; context 4 and horizon 2 need 11"),
        ('t,y\n1,"2\n', "is not a CSV file"),
    ],
)
def test_a_csv_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SeriesTask.from_file(write(tmp_path, text), targets=["y"], context=4, horizon=2)


def test_files_that_are_no_csv(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"t,y\n1,\xff\xfe\n")
    for path, words in [
        (tmp_path / "absent.csv", "does not exist"),
        (tmp_path, "is a folder"),
        (binary, "is not UTF-8 text"),
    ]:
        with pytest.raises(InputError, match=words):
            SeriesTask.from_file(path, targets=["y"], context=4, horizon=2)


@pytest.mark.parametrize("sizes", [{"context": 0}, {"horizon": -1}, {"season": 0}])
def test_sizes_below_one_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        SeriesTask(ramp(100), **{"context": 4, "horizon": 2, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize("also", [{"covariates": ["y"]}, {"time_column": "y"}])
def test_a_column_is_named_once(tmp_path: Path, also: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="'y' is named twice"):
        SeriesTask.from_file(write(tmp_path, "y\n1\n"), targets=["y"], context=4, horizon=2, **also)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["2020-01-01", "2020-01-02", "2020-01-02"], r"row 3 \(line 4\), .* stands twice"),
        (["1700000000000000001", "1700000000000000002", "5"], r"row 3 \(line 4\), .*is earlier"),
        (["3", "2", "1"], r"row 2 \(line 3\), column 't': '2' is earlier than '3'"),
        (["2020-02", "2020-01", "2019-12"], "'2020-01' is earlier than '2020-02'"),
        (["1", "", "3"], r"row 2 \(line 3\), column 't': the time is missing"),
        (["1", "soon", "3"], "'soon' is neither a number nor an ISO 8601 date"),
        (["1", "nan", "3"], "'nan' is neither"),
        (["1", "2_0", "3"], "'2_0' is neither"),
        (["1", "2020-01-01", "3"], "'2020-01-01' is a date, '1' in row 1 .* is a number"),
        (["2020-01-01", "2020-01-02T00:00Z", ""], "'2020-01-02T00:00Z' is a time with a zone"),
    ],
)
def test_times_that_do_not_ascend(tmp_path: Path, times: list[str], words: str) -> None:
    path = write(tmp_path, "t,y\n" + "".join(f"{time},1\n" for time in times))
    with pytest.raises(InputError, match=words):
        SeriesTask.from_file(path, targets=["y"], context=4, horizon=2, time_column="t")
    with pytest.raises(InputError, match="has 3 rows"):  # the order is not looked at unasked
        SeriesTask.from_file(path, targets=["y"], context=4, horizon=2)


@pytest.mark.parametrize(
    "time",
    ["{0}", "{0}.5", "17{0:02}", "20{0:02}-06", "2020-01-01 00:{0:02}", "2020-01-01T00:{0:02}:00Z"],
)
def test_times_that_ascend_are_checked_again_when_the_task_is_rebuilt(
    tmp_path: Path, time: str
) -> None:
    rows = [f"{time.format(r)},{r}" for r in range(40)]
    path = write(tmp_path, "\n".join(["t,y", *rows]))
    task = SeriesTask.from_file(path, targets=["y"], context=4, horizon=2, time_column="t")
    assert task.model_fields()["features"] == 1
    write(tmp_path, "\n".join(["t,y", *reversed(rows)]))
    with pytest.raises(InputError, match="is earlier than"):
        task_from_dict(task.describe(), data=path)
    older = {key: value for key, value in task.describe().items() if key != "time_column"}
    assert task_from_dict(older, data=path).describe()["time_column"] is None


def test_the_season_of_a_wave_is_found_and_its_baseline_exact() -> None:
    rows = np.arange(400)
    wave = np.sin(2 * np.pi * rows / 20)
    assert find_season(wave) == 20
    assert find_season(np.random.default_rng(0).normal(size=400)) is None
    assert find_season(np.ones(400)) is None
    columns = Columns(names=("y",), values=wave[:, None], observed=np.ones((400, 1), bool))
    # A horizon past the season repeats the last season once more.
    scores = SeriesTask(columns, context=8, horizon=25).baselines("test", 1000)
    assert scores["seasonal_naive"]["rmse"] == pytest.approx(0, abs=1e-9)
    assert metric_value(scores["naive_last"], "rmse") > 0.5


def test_the_last_value_is_the_naive_forecast() -> None:
    scores = SeriesTask(ramp(100), context=4, horizon=3).baselines("validation", 1000)
    wanted = {"rmse": pytest.approx((14 / 3) ** 0.5), "mae": 2.0, "mase": 2.0}
    assert scores == {"naive_last": wanted}


def test_batches_are_those_of_seed_split_and_step() -> None:
    task = SeriesTask.from_file(SUNSPOTS, targets=["sunspots"], context=12, horizon=4, seed=3)
    batch = task.batch("train", 6, 5)
    assert batch.inputs.dtype == np.float32
    assert batch.targets.dtype == np.float64
    rebuilt = task_from_dict(task.describe(), data=SUNSPOTS)
    np.testing.assert_array_equal(rebuilt.batch("train", 6, 5).inputs, batch.inputs)
    assert (task.batch("train", 6, 6).inputs != batch.inputs).any()
    assert str(SUNSPOTS.parent) not in str(task.describe())


def test_many_windows_are_thinned_out_evenly() -> None:
    task = SeriesTask(ramp(1000), context=4, horizon=2)
    (batch,) = task.evaluation("train", 100, 10)
    first = batch.targets[:, 0, 0]
    assert len(first) == 10
    assert first[0] == 4
    assert first[-1] == 698
    assert np.ptp(np.diff(first)) <= 1
