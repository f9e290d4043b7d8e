"""Forecasts of several targets, of several series in one table, padded, with gaps, at origins."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
from loopedge.tasks.metrics import metric_value, total
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.splits import Origin, split_bounds
from loopedge.tasks.task import SPLITS, Batch, task_from_dict


def stacked(sizes: list[int]) -> Columns:
    """Series i holds 1000 i + r in its first column and minus that in its second."""
    values = np.concatenate([1000.0 * i + np.arange(size) for i, size in enumerate(sizes)])
    return Columns(
        names=("y", "z"),
        values=np.stack([values, -values], axis=1),
        observed=np.ones((len(values), 2), bool),
        edges=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        series=tuple(f"s{i}" for i in range(len(sizes))),
    )


def batches(task: SeriesTask, split: Any) -> list[Batch]:
    return list(task.evaluation(split, 16, 100_000))


@given(st.lists(st.integers(1, 70), min_size=1, max_size=5), st.integers(1, 8), st.integers(1, 3))
def test_windows_stay_in_their_series_and_split(
    sizes: list[int], context: int, horizon: int
) -> None:
    sizes = [*sizes, 80]
    task = SeriesTask(
        stacked(sizes), context=context, min_context=1, horizon=horizon, targets=2, group="shop"
    )
    for split in SPLITS:
        for batch in batches(task, split):
            series = batch.targets[:, :1, :1] // 1000
            rows = batch.targets[:, :, 0] - 1000 * series[:, :, 0]
            for number, within in zip(series.ravel().astype(int), rows, strict=True):
                bounds = split_bounds(sizes[number])[split]
                assert bounds.first <= within.min() <= within.max() < bounds.end
            if context == 1:
                assert batch.attention_mask is None
                continue
            assert batch.attention_mask is not None
            kept = batch.attention_mask.astype(bool)
            np.testing.assert_array_equal(kept.sum(1), np.minimum(rows[:, 0], context))
            assert kept[:, -1].all()
            np.testing.assert_array_equal(batch.attention_mask, np.sort(batch.attention_mask))
            same = (batch.inputs[:, :, :1] // 1000 == series)[:, :, 0]
            assert same[kept].all()
            np.testing.assert_array_equal(batch.inputs[:, -1, 0] + 1, batch.targets[:, 0, 0])


def test_series_that_are_too_short_are_reported() -> None:
    task = SeriesTask(stacked([90, 3, 5, 80]), context=4, horizon=2, group="shop")
    left_out = "2 of 4 series are too short for a window and are not used"
    assert left_out in task.notes
    assert left_out not in SeriesTask(stacked([90, 80]), context=4, horizon=2, group="shop").notes


def test_padding_holds_the_mean() -> None:
    task = SeriesTask(stacked([80]), context=8, min_context=1, horizon=2)
    first = task._cut(np.array([3]))
    scaling = task.scaling()
    assert scaling is not None
    np.testing.assert_array_equal(first.inputs[0, :5], np.tile(scaling.input_mean, (5, 1)))
    np.testing.assert_array_equal(first.inputs[0, 5:, 0], [0, 1, 2])


def test_several_targets_are_scored_in_units_of_their_spread() -> None:
    task = SeriesTask(stacked([100]), context=4, horizon=3, targets=2)
    assert task.metric == "scaled_rmse"
    assert task.model_fields() | {"outputs": 2, "horizon": 3} == task.model_fields()
    scaling = task.scaling()
    assert scaling is not None
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(10, 3, 2))
    targets[0, 0, 0] = np.nan
    error = generator.normal(size=(10, 3, 2))
    scores = task.score(np.nan_to_num(targets) + error, targets)
    error[0, 0, 0] = np.nan
    assert list(scores) == ["scaled_rmse", "rmse.y", "rmse.z", "mae.y", "mae.z"]
    assert scores["rmse.y"] == pytest.approx(np.sqrt(np.nanmean(error[:, :, 0] ** 2)))
    assert scores["mae.z"] == pytest.approx(np.abs(error[:, :, 1]).mean())
    scaled = np.sqrt(np.nanmean((error / scaling.output_scale) ** 2))
    assert scores["scaled_rmse"] == pytest.approx(scaled)
    outputs = np.nan_to_num(targets)
    parts = total(task.tally(outputs[i : i + 4], targets[i : i + 4]) for i in (0, 4, 8))
    assert task.metrics(parts) == pytest.approx(task.score(outputs, targets))
    in_units = {"mase", "mase.y", "mase.z"}  # which batches know
    assert set(task.baselines("test", 100)["naive_last"]) == set(scores) | in_units


def test_scores_do_not_depend_on_the_units_of_a_target() -> None:
    columns = stacked([200])
    columns.values[:] = np.random.default_rng(0).normal(size=(200, 2))
    before = SeriesTask(columns, context=4, horizon=3, targets=2).baselines("test", 100)
    columns.values[:, 1] *= 1000
    after = SeriesTask(columns, context=4, horizon=3, targets=2).baselines("test", 100)
    one, other = before["naive_last"], after["naive_last"]
    assert other["scaled_rmse"] == pytest.approx(one["scaled_rmse"], rel=1e-5)
    assert metric_value(other, "rmse.z") == pytest.approx(1000 * metric_value(one, "rmse.z"))


def test_a_missing_value_reaches_the_model_and_is_never_a_target() -> None:
    columns = stacked([100])
    columns.observed[::7, 0] = False
    columns.values[~columns.observed] = np.nan
    task = SeriesTask(columns, context=5, horizon=2, targets=1, missing="indicator")
    assert task.model_fields()["missing"]
    scaling = task.scaling()
    assert scaling is not None
    seen = columns.values[:70][columns.observed[:70, 0], 0]
    assert scaling.input_mean[0] == pytest.approx(seen.mean())
    ends = 0
    for split in SPLITS:
        for batch in batches(task, split):
            assert np.isnan(batch.inputs[:, :, 0]).any(axis=1).mean() > 0.5
            assert not np.isnan(batch.inputs[:, :, 1]).any()
            rows = -batch.inputs[:, -1, 1]
            ends += int(np.isnan(batch.inputs[:, -1, 0]).sum())
            np.testing.assert_array_equal(np.isnan(batch.targets[:, 0, 0]), (rows + 1) % 7 == 0)
    assert ends > 0  # a window may end at a gap: nothing was filled from what follows
    scores = task.baselines("test", 100)["naive_last"]
    assert np.isfinite(metric_value(scores, "rmse"))


@given(st.integers(2, 6), st.integers(60, 300))
def test_origins_follow_each_other_at_the_end(count: int, rows: int) -> None:
    bounds = [split_bounds(rows, Origin(number=i, count=count)) for i in range(count)]
    assert bounds[-1]["test"].end == rows
    sizes = {b[split].end - b[split].first for b in bounds for split in SPLITS[1:]}
    assert len(sizes) == 1
    assert bounds[0]["train"].end >= 0.7 * rows
    for earlier, later in itertools.pairwise(bounds):
        assert earlier["test"].end == later["test"].first
        assert earlier["test"] == later["validation"]
    for b in bounds:
        assert b["train"].first == 0
        assert b["train"].end == b["validation"].first
        assert b["validation"].end == b["test"].first


def test_a_task_at_origins_is_rebuilt_from_its_description(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("y\n" + "".join(f"{np.sin(r / 3):.4f}\n" for r in range(200)))
    task = SeriesTask.from_file(path, targets=["y"], context=6, horizon=2)
    for origin in task.at_origins(3):
        rebuilt = task_from_dict(origin.describe(), data=path)
        assert rebuilt.describe() == origin.describe()
        expected = origin.batch("test", 4, 0).inputs
        np.testing.assert_array_equal(rebuilt.batch("test", 4, 0).inputs, expected)
    with pytest.raises(InputError, match="origins is 1, at least 2 are needed"):
        task.at_origins(1)
    with pytest.raises(
        InputError, match=r"data.csv has 200 rows; context 6 and horizon 2 at 40 origins need 27\d"
    ) as caught:
        task.at_origins(40)
    assert (
        caught.value.hint
        == "name a longer table, or train with a lower origins, context or horizon"
    )


GROUPED = "shop,y,z,x\n" + "".join(
    f"{shop},{r + n},{r * n},{'' if r % 9 == 4 else r % 5}\n"
    for r in range(60)
    for n, shop in enumerate("abc")
)


@pytest.mark.parametrize("missing", ["interpolate", "indicator"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_variant_is_rebuilt_from_its_description(
    tmp_path: Path, kind: str, missing: Any
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GROUPED)
    if kind == "parquet":
        pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
        csv = pytest.importorskip("pyarrow.csv")
        path = tmp_path / "data.parquet"
        pq.write_table(csv.read_csv(tmp_path / "data.csv"), path)
    task = SeriesTask.from_file(
        path,
        targets=["y", "z"],
        covariates=["x"],
        context=8,
        min_context=3,
        horizon=2,
        missing=missing,
        group="shop",
        seed=4,
    )
    description = task.describe()
    assert (description["series"], description["rows"], description["origin"]) == (3, None, None)
    rebuilt = task_from_dict(description, data=path)
    assert rebuilt.describe() == description
    original, again = task.batch("train", 8, 3), rebuilt.batch("train", 8, 3)
    np.testing.assert_array_equal(original.inputs, again.inputs)
    np.testing.assert_array_equal(original.targets, again.targets)


def test_a_description_of_an_older_version_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("y,x\n" + "".join(f"{r},{'' if r == 9 else r}\n" for r in range(60)))
    old = {
        "name": "series",
        "kind": "values",
        "target": "y",
        "covariates": ["x"],
        "context": 6,
        "horizon": 2,
        "season": None,
        "interpolate": True,
        "seed": 0,
    }
    description = task_from_dict(old, data=path).describe()
    assert (description["targets"], description["missing"], description["min_context"]) == (
        ["y"],
        "interpolate",
        6,
    )
    with pytest.raises(InputError, match=r"row 10 \(line 11\), column 'x': the value is missing"):
        task_from_dict({**old, "interpolate": False}, data=path)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ([9, 8], {}, "the longest of 2 series has 9 rows; context 4 and horizon 2 need 11"),
        ([90], {"min_context": 5}, "min_context is 5, at most the context of 4 table rows"),
        ([90], {"min_context": 0}, "min_context is 0, at least 1"),
        ([90], {"horizon": 200}, "context 4 and horizon 200 need"),
    ],
)
def test_series_that_cannot_be_used(sizes: list[int], options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SeriesTask(stacked(sizes), **{"context": 4, "horizon": 2, **options})
