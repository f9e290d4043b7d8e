"""Whether float32 can tell the values of a column apart: measured against numpy's own rounding."""

from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns, fit_scaling
from loopedge.data.tables.precision import FINE, LOST, Precision, judge_precision
from loopedge.errors import InputError
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.series import SeriesTask

ROWS = 400


def walk(rows: int = ROWS, *, seed: int = 0) -> Any:
    return np.cumsum(np.random.default_rng(seed).normal(size=rows))


def columns_of(*values: Any, edges: Any = None, **more: Any) -> Columns:
    stacked = np.stack(values, axis=1).astype(np.float64)
    names = ("y", "x", "z")[: len(values)]
    return Columns(names=names, values=stacked, observed=~np.isnan(stacked), edges=edges, **more)


def judged(values: Any, **options: Any) -> Precision:
    return judge_precision(columns_of(values), 0, float(np.mean(values)), **options)


@pytest.mark.parametrize(
    ("level", "verdict"),
    [(0, "float32"), (1e3, "float32"), (1e6, "wide"), (1e8, "wide"), (1e9, "wide"), (1e12, "wide")],
)
def test_the_level_of_a_column_decides_by_its_steps(level: float, verdict: str) -> None:
    assert judged(level + walk()).verdict == verdict


@pytest.mark.parametrize("swing", [1e-9, 1e-3, 1.0, 1e6])
def test_it_is_a_matter_of_shares_not_of_units(swing: float) -> None:
    assert judged(swing * (1e3 + walk())).verdict == "float32"
    assert judged(swing * (1e9 + walk())).verdict == "wide"


@pytest.mark.parametrize("level", [10.0, 1e4, 3e5, 1e7])
def test_the_share_bounds_what_numpy_rounds_off(level: float) -> None:
    values = level + walk()
    found = judged(values)
    error = np.abs(values.astype(np.float32).astype(np.float64) - values)
    step = np.median(np.abs(np.diff(values)))
    assert np.median(error) / step <= found.about_zero * 1.01
    assert found.about_zero <= 8 * np.median(error) / step  # and is not far from it
    centred = values - values.mean()
    error = np.abs(centred.astype(np.float32).astype(np.float64) - centred)
    assert np.median(error) / step <= found.centred * 1.01 + 1e-12


def test_rounding_below_the_threshold_does_not_change_a_score() -> None:
    steps = np.random.default_rng(1).normal(size=20_000)
    for share, most in ((FINE, 1e-4), (0.1, 5e-3), (LOST, 0.1)):
        values = np.cumsum(steps)
        grid = (
            2 * share * np.median(np.abs(steps))
        )  # rounding to it is off by `share` of a step at most
        rounded = np.rint(values / grid) * grid
        exact, found = (np.sqrt(np.mean(np.diff(v) ** 2)) for v in (values, rounded))
        assert abs(found / exact - 1) < most


def test_times_and_counters_are_wide_and_long_ones_blurred() -> None:
    hours = 1.7e9 + 3600 * np.arange(1000.0)
    assert judged(hours).verdict == "wide"
    assert judged(1000 * hours).verdict == "wide"  # milliseconds
    assert judged(np.arange(1e6)).verdict == "blurred"
    assert (
        judged(2.0**53 + 2 * np.arange(1000.0)).verdict == "lost"
    )  # float64 itself tells them barely apart


def test_ids_that_jump_are_as_float32_likes_them() -> None:
    ids = np.random.default_rng(0).integers(0, 2**40, 1000).astype(np.float64)
    assert judged(ids).verdict == "float32"


def test_values_that_stay_and_values_that_are_missing_are_no_steps() -> None:
    values = np.repeat(1e9 + walk(), 5)
    assert judged(values).step == pytest.approx(np.median(np.abs(np.diff(1e9 + walk()))))
    gaps = 1e9 + walk()
    gaps[::2] = np.nan  # no two neighbours: the deviation counts
    seen = gaps[1::2]
    found = judge_precision(columns_of(gaps), 0, float(seen.mean()))
    assert found.step == pytest.approx(seen.std())
    assert found.verdict == "wide"


def test_a_constant_column_has_nothing_to_tell_apart() -> None:
    assert judged(np.full(50, 1e9)).verdict == "float32"
    assert judged(np.full(50, 0.1) * 3).verdict == "float32"


def test_the_worst_series_decides() -> None:
    values = np.concatenate([walk(300), 1e9 + walk(100)])
    columns = columns_of(values, edges=np.array([0, 300, 400]), series=("a", "b"))
    mean = float(values[:300].mean())
    assert judge_precision(columns, 0, mean).verdict == "lost"  # far from the one mean
    assert judge_precision(columns, 0, mean, by_window=True).verdict == "wide"


def test_a_task_of_such_a_column_is_wide_and_says_why() -> None:
    task = SeriesTask(columns_of(1e9 + walk()), context=8, horizon=2)
    assert task.wide
    assert task.batch("train", 4, 0).inputs.dtype == np.float64
    assert task.model_fields()["wide"] is True
    assert task.describe()["wide"] is True
    found = next(finding for finding in task.findings if finding.kind == "precision")
    assert "column 'y' stands at about 1,000,000,0" in found.message
    assert "takes and gives float64" in found.message
    plain = SeriesTask(columns_of(walk()), context=8, horizon=2)
    assert not plain.wide
    assert plain.batch("train", 4, 0).inputs.dtype == np.float32
    assert plain.describe()["wide"] is False


def test_one_column_makes_all_inputs_wide() -> None:
    task = SeriesTask(columns_of(walk(), 1.7e12 + 6e4 * np.arange(ROWS)), context=8, horizon=2)
    assert task.wide
    values = task.batch("train", 4, 0).inputs
    assert np.isin(values[:, :, 1], task.columns.values[:, 1]).all()  # not rounded


def test_targets_are_never_rounded() -> None:
    for level in (0.1, 1e9, 1e12):
        columns = columns_of(level + walk())
        task = SeriesTask(columns, context=8, horizon=2)
        targets = task.batch("train", 16, 0).targets
        assert targets.dtype == np.float64
        assert np.isin(targets, columns.values).all()


def test_mean_and_scale_keep_their_digits() -> None:
    values = 1e12 + walk()
    mean, scale = fit_scaling(columns_of(values), np.arange(ROWS) < 280)
    assert mean.dtype == scale.dtype == np.float64
    assert mean[0] == values[:280].mean()
    assert scale[0] == values[:280].std()
    described = SeriesTask(columns_of(values), context=8, horizon=2).describe()
    assert described["mean"] == [values[:280].mean()]


def test_what_float32_cannot_tell_apart_is_refused_with_a_way_out() -> None:
    values = 2.0**53 + 2 * np.arange(400.0)
    with pytest.raises(InputError, match=r"column 'x' stands at about .*cannot tell") as caught:
        SeriesTask(columns_of(walk(), values), context=8, horizon=2)
    assert "leave 'x' out" in str(caught.value.hint)
    with pytest.raises(InputError, match=r"column 'y'") as caught:
        SeriesTask(columns_of(values), context=8, horizon=2)
    assert "differences of 'y'" in str(caught.value.hint)
    assert "leave" not in str(caught.value.hint)


def test_series_far_apart_are_refused_unless_each_window_is_centred() -> None:
    values = np.concatenate([walk(200), 1e10 + walk(200)])
    columns = columns_of(values, edges=np.array([0, 200, 400]), series=("a", "b"))
    with pytest.raises(InputError) as caught:
        SeriesTask(columns, context=8, horizon=2, group="name")
    assert 'scaling="window"' in str(caught.value.hint)
    assert SeriesTask(columns, context=8, horizon=2, group="name", scaling="window").wide


def test_a_file_from_before_stays_as_it_is_and_says_what_that_costs() -> None:
    task = SeriesTask(columns_of(1e9 + walk()), context=8, horizon=2, wide=False)
    assert not task.wide
    assert task.batch("train", 4, 0).inputs.dtype == np.float32
    (found,) = [finding for finding in task.findings if finding.kind == "precision"]
    assert "the model takes and gives float32" in found.message
    assert "train it again" in (found.hint or "")


def test_classification_is_judged_too() -> None:
    values = 1e9 + walk()
    columns = columns_of(values)
    columns = Columns(
        names=("y",),
        values=columns.values,
        observed=columns.observed,
        labels=("up", "down"),
        codes=np.arange(ROWS, dtype=np.int32) % 2,
    )
    task = LabelledSeriesTask(columns, label="l", context=8)
    assert task.wide
    assert task.batch("train", 4, 0).inputs.dtype == np.float64
