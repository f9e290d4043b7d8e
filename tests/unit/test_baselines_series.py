"""Plain forecasts of a table: what they forecast, what they are chosen by, and what they must never see."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loopedge.baselines.attempts import Judged, attempt
from loopedge.baselines.fair import fair_baselines, fixed_evaluation
from loopedge.baselines.scores import BaselineScores
from loopedge.baselines.series.climatology import climatology_and_autoregression
from loopedge.baselines.series.harmonics import Climatology, Shape, TrainingRows
from loopedge.baselines.series.naive import last_value, seasonal_naive, window_mean
from loopedge.baselines.series.ridge import PENALTIES, ridge_on_lags
from loopedge.baselines.series.windows import SeriesWindows
from loopedge.data.tables.columns import Columns
from loopedge.errors import InterruptedRunError, MissingExtraError
from loopedge.tasks.generated.in_context import LinearInContextTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.sample_tallies import weighted_total
from loopedge.tasks.series import SeriesTask

Array = np.typing.NDArray[Any]
NAMES = [
    "last value",
    "seasonal naive",
    "window mean",
    "ridge on lags",
    "climatology + autoregression",
    "boosting on lags",
]


def columns_of(values: Array | Sequence[float], **more: Any) -> Columns:
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    names = tuple(f"y{place}" for place in range(table.shape[1]))
    return Columns(names=names, values=table, observed=~np.isnan(table), **more)


def wave(rows: int, season: float = 12, seed: int = 0) -> Array:
    drawn = np.random.default_rng(seed)
    noise = np.zeros(rows)
    for row in range(1, rows):
        noise[row] = 0.7 * noise[row - 1] + drawn.normal()
    return np.asarray(5 * np.sin(2 * np.pi * np.arange(rows) / season) + noise + 20)


def by_name(found: list[BaselineScores]) -> dict[str, BaselineScores]:
    return {score.name: score for score in found}


def test_the_last_value_and_the_season_are_those_of_the_task() -> None:
    task = SeriesTask(columns_of(wave(400)), context=24, horizon=5, season=12)
    windows = SeriesWindows(task, 64)
    for split in ("validation", "test"):
        known = task.baselines(split, 64)
        for fit, name in ((last_value, "naive_last"), (seasonal_naive, "seasonal_naive")):
            found = fit(windows).metrics[split]
            assert found == pytest.approx(known[name])


def test_a_season_that_was_found_names_its_neighbour_in_the_calendar() -> None:
    values = wave(1500, season=360)
    found = seasonal_naive(
        SeriesWindows(SeriesTask(columns_of(values), context=8, horizon=4), 64)
    ).about
    assert "365" in found
    assert "a year" in found
    asked = SeriesTask(columns_of(values), context=8, horizon=4, season=100)
    about = seasonal_naive(SeriesWindows(asked, 64)).about
    assert about.startswith("season 100;")
    assert "365" not in about


def test_a_window_mean_is_as_long_as_the_validation_windows_say() -> None:
    values = wave(300)
    task = SeriesTask(columns_of(values), context=10, horizon=3)
    judged = window_mean(SeriesWindows(task, 1000))
    stops = task.stops
    errors = {}
    for length in range(1, 11):
        for split in ("validation", "test"):
            forecast = np.array([values[stop - length : stop].mean() for stop in stops[split]])
            came = np.stack([values[stop : stop + 3] for stop in stops[split]])
            errors[split, length] = math.sqrt(np.square(came - forecast[:, None]).mean())
    best = min(range(1, 11), key=lambda length: errors["validation", length])
    assert judged.about == f"of the last {best} values" or (best == 1 and "1 value" in judged.about)
    assert judged.metrics["test"]["rmse"] == pytest.approx(errors["test", best])


def test_a_window_mean_leaves_out_what_is_missing_and_what_lies_before_a_gap() -> None:
    values = np.arange(1.0, 61.0)
    values[29] = np.nan
    pieces = np.array([0, 28, 60])
    task = SeriesTask(
        columns_of(values, pieces=pieces), context=4, min_context=2, horizon=1, missing="indicator"
    )
    from loopedge.baselines.series.naive import _mean

    windows = SeriesWindows(task, 64)
    stops = np.array([31, 32, 40])
    # rows 28 and 30 of the piece that begins at 28; then 28, 30, 31; then four whole rows
    wanted = [(29 + 31) / 2, (29 + 31 + 32) / 3, np.arange(37.0, 41.0).mean()]
    assert _mean(windows, 4)(stops)[:, 0, 0] == pytest.approx(wanted)


@pytest.mark.parametrize("seed", [4, 8])  # by the window's mean, and by that of the training part
def test_ridge_is_ridge(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    noise = drawn.normal(size=(161, 2))
    values = noise[1:] + 0.4 * noise[:-1]
    task = SeriesTask(columns_of(values), targets=1, context=6, horizon=2)
    judged = ridge_on_lags(SeriesWindows(task, 1000))
    lags = int(judged.about.split()[0])
    penalty = float(judged.about.split("penalty ")[1].split(",")[0])
    level = judged.about.split("from the ")[1]
    assert penalty in PENALTIES
    assert penalty >= 0.1  # else weights would be the same without one

    def features(stops: Array) -> tuple[Array, Array, Array]:
        windows = np.stack([values[stop - 6 : stop] for stop in stops])
        base = {
            "training mean": np.broadcast_to(task.scaling().input_mean, (len(stops), 2)),  # type: ignore[union-attr]
            "last value": windows[:, -1],
            "window mean": windows.mean(axis=1),
        }[level]
        size = np.ones((len(stops), 2))
        if level == "window mean":
            size = np.maximum(windows.std(axis=1), 0.1 * task.column_deviation)
        chosen = (windows[:, ::-1][:, :lags] - base[:, None]) / size[:, None]
        return chosen.reshape(len(stops), -1), base[:, :1], size[:, :1]

    x, base, size = features(task.stops["train"])
    y = (np.stack([values[stop : stop + 2, 0] for stop in task.stops["train"]]) - base) / size
    middle, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    x = (x - middle) / scale
    inverse = np.linalg.inv(x.T @ x + penalty * len(x) * np.eye(x.shape[1]))
    weights = inverse @ x.T @ (y - y.mean(axis=0))
    for split in ("validation", "test"):
        stops = task.stops[split]
        z, base, size = features(stops)
        forecast = ((z - middle) / scale @ weights + y.mean(axis=0)) * size + base
        came = np.stack([values[stop : stop + 2, 0] for stop in stops])
        rmse = math.sqrt(np.square(came - forecast).mean())
        assert judged.metrics[split]["rmse"] == pytest.approx(rmse, rel=1e-6)


def test_a_climatology_is_least_squares_of_each_series() -> None:
    first, second = wave(120, seed=1), 3 * wave(120, seed=2)
    columns = columns_of(
        np.concatenate([first, second]), edges=np.array([0, 120, 240]), series=("a", "b")
    )
    task = SeriesTask(columns, context=12, horizon=3)
    windows = SeriesWindows(task, 64)
    places = np.tile(np.arange(120.0), 2)
    shape = Shape(periods=(12.0,), harmonics=2, trend=False)
    fitted = Climatology.fit(shape, TrainingRows.of(windows, places), 2)
    rows = np.arange(84)  # 70 % of them are for training
    design = np.stack(
        [
            np.ones(84),
            *(
                wave_of(2 * np.pi * times * rows / 12)
                for times in (1, 2)
                for wave_of in (np.cos, np.sin)
            ),
        ],
        axis=1,
    )
    for number, values in enumerate((first, second)):
        wanted = np.linalg.lstsq(design, values[:84], rcond=None)[0]
        assert fitted.weights[number, :, 0] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_climatology_and_autoregression_know_a_wave_with_fading_noise() -> None:
    windows = SeriesWindows(SeriesTask(columns_of(wave(1200)), context=24, horizon=6), 1000)
    judged = climatology_and_autoregression(windows)
    assert "season 12" in judged.about
    # the best forecast of an AR(1) of .7 errs by a variance of 1, 1 + .49, ... over the steps
    oracle = math.sqrt(np.cumsum(0.49 ** np.arange(6)).mean())
    reached = judged.metrics["test"]["rmse"]
    assert reached == pytest.approx(oracle, rel=0.15)
    for fit in (last_value, seasonal_naive, window_mean):
        assert reached < fit(windows).metrics["test"]["rmse"]  # type: ignore[operator]


@pytest.mark.slow
def test_what_samples_add_sums_up_to_the_metrics() -> None:
    values = np.stack([wave(400), wave(400, seed=3).cumsum()], axis=1)
    task = SeriesTask(columns_of(values), targets=2, context=12, horizon=3)
    found = fair_baselines(task, 50)
    assert [score.name for score in found] == NAMES
    for score in found:
        assert score.reason is None
        for split in ("validation", "test"):
            tallies = score.tallies[split]
            assert {len(array) for array in tallies.values()} == {50}
            assert task.metrics(weighted_total(tallies)) == pytest.approx(getattr(score, split))


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["column", "window"])
def test_no_baseline_sees_what_comes_later(scaling: Any) -> None:
    values = np.stack([wave(300), wave(300, seed=5)], axis=1)
    task = SeriesTask(columns_of(values), context=10, horizon=1, scaling=scaling)
    last = int(task.stops["test"][-1])
    changed = values.copy()
    changed[last:] += 1000  # the target of the last window, and its covariate
    other = SeriesTask(columns_of(changed), context=10, horizon=1, scaling=scaling)
    before, after = (by_name(fair_baselines(each, 1000)) for each in (task, other))
    for name in NAMES:
        one, two = before[name], after[name]
        assert one.about == two.about
        assert one.validation == pytest.approx(two.validation)
        first, second = (score.tallies["test"]["absolute"][:, 0] for score in (one, two))
        assert first[:-1] == pytest.approx(second[:-1])
        # the changed target lies far above the forecast, which is the same in both
        forecast = changed[last, 0] - second[-1]
        assert abs(values[last, 0] - forecast) == pytest.approx(first[-1], abs=1e-6)


@pytest.mark.slow
def test_no_baseline_is_chosen_by_the_test_rows() -> None:
    values = wave(300)
    task = SeriesTask(columns_of(values), context=10, horizon=2)
    changed = values.copy()
    changed[task.bounds[0]["test"].first :] = 7.0
    other = SeriesTask(columns_of(changed), context=10, horizon=2)
    before, after = (by_name(fair_baselines(each, 1000)) for each in (task, other))
    for name in NAMES:
        assert before[name].about == after[name].about
        assert before[name].validation == pytest.approx(after[name].validation)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.full(200, 3.25), id="constant"),
        pytest.param(np.zeros(200), id="zeros"),
        pytest.param(wave(24), id="tiny"),
        pytest.param(1e9 + wave(200), id="a-high-level"),
    ],
)
def test_no_table_makes_a_baseline_raise_or_warn(values: Array) -> None:
    task = SeriesTask(columns_of(values), context=3, horizon=2)
    found = fair_baselines(task, 100)
    assert [score.name for score in found] == NAMES
    for score in found:
        assert (score.reason is None) == bool(score.test)
        if score.test and np.ptp(values) == 0:
            assert score.test["mase"] is None
            assert score.test["rmse"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_missing_targets_several_series_and_gaps() -> None:
    drawn = np.random.default_rng(4)
    values = np.stack([wave(600), wave(600, seed=2)], axis=1)
    values[300:] *= 40
    values[drawn.random(values.shape) < 0.1] = np.nan
    columns = columns_of(
        values,
        edges=np.array([0, 300, 600]),
        series=("low", "high"),
        pieces=np.array([0, 120, 300, 450, 600]),
    )
    task = SeriesTask(
        columns,
        targets=2,
        context=12,
        min_context=3,
        horizon=2,
        missing="indicator",
        scaling="window",
    )
    found = fair_baselines(task, 200)
    assert task.metric == "mase"
    for score in found:
        if score.name != "seasonal naive":
            assert score.reason is None
            assert score.test["mase"] is not None


def test_a_table_needs_scikit_learn_and_other_tasks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import loopedge.baselines.fair as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    task = SeriesTask(columns_of(wave(100)), context=3, horizon=1)
    with pytest.raises(MissingExtraError) as error:
        fair_baselines(task, 10)
    assert error.value.extra == "pilot"
    assert isinstance(fair_baselines(SortingTask(length=4, vocab=6), 10), list)


def test_the_baselines_of_a_generated_task_are_its_own_in_words() -> None:
    task = LinearInContextTask(dims=2, points=4, seed=3)
    found = by_name(fair_baselines(task, 20))
    assert set(found) == {"zero", "least squares"}
    assert found["least squares"].upper_bound
    assert not found["zero"].upper_bound
    known = task.baselines("test", 20)
    assert found["zero"].test == pytest.approx(known["zero"])
    assert found["zero"].tallies == {}


def test_a_task_whose_baselines_fail_says_why() -> None:
    class Broken(SortingTask):
        def baselines(self, split: Any, samples: int) -> Any:
            raise ValueError("no luck")

    (score,) = fair_baselines(Broken(length=4, vocab=6), 10)
    assert "no luck" in (score.reason or "")
    assert score.test == {}


def test_a_baseline_that_is_interrupted_ends_the_pilot_and_is_no_failure() -> None:
    class Ended(SortingTask):
        def baselines(self, split: Any, samples: int) -> Any:
            raise InterruptedRunError("asked to end")

    with pytest.raises(InterruptedRunError):
        fair_baselines(Ended(length=4, vocab=6), 10)

    def ended() -> Any:
        raise InterruptedRunError("asked to end")

    with pytest.raises(InterruptedRunError):
        attempt(SortingTask(length=4, vocab=6), "ended", ended)


def test_a_baseline_without_a_number_has_a_reason() -> None:
    task = SeriesTask(columns_of(wave(100)), context=3, horizon=1)
    endless: dict[str, float | None] = {"rmse": math.inf}
    score = attempt(
        task,
        "endless",
        lambda: Judged(about="", metrics={"validation": endless, "test": endless}, tallies={}),
    )
    assert score.reason == "its rmse on the validation split is not a finite number"
    assert score.test == {}


def test_which_evaluations_hang_on_the_seed() -> None:
    assert fixed_evaluation(SeriesTask(columns_of(wave(100)), context=3, horizon=1))
    assert not fixed_evaluation(SortingTask(length=4, vocab=6))
    one, two = (
        next(iter(SortingTask(length=4, vocab=6, seed=seed).evaluation("test", 8, 8)))
        for seed in (0, 1)
    )
    assert (one.inputs != two.inputs).any()
