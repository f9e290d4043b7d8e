"""MASE: errors in units of what each series changes over a season in training; right values by loops over windows."""

import math
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns, Missing
from loopedge.tasks.metrics import Metrics, total
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.splits import split_bounds
from loopedge.tasks.task import task_from_dict

Array = Any
PERIOD = 7


def made(series: list[Array], *, missing: float = 0.0, pieces: Array = None) -> Columns:
    """Return columns of series, each (rows, targets), some of their values missing."""
    values = np.concatenate(series).astype(np.float64)
    generator = np.random.default_rng(9)
    observed = generator.random(values.shape) >= missing
    values[~observed] = np.nan
    edges = np.concatenate([[0], np.cumsum([len(each) for each in series])]).astype(np.int64)
    several = len(series) > 1
    return Columns(
        names=tuple("yzw"[: values.shape[1]]),
        values=values,
        observed=observed,
        edges=edges if several else None,
        series=tuple(f"s{i}" for i in range(len(series))) if several else (),
        pieces=pieces,
    )


def wavy(rows: int, *, level: float, seed: int, targets: int = 1) -> Array:
    """Return a noisy week, around a level and as large."""
    generator = np.random.default_rng(seed)
    week = np.sin(2 * np.pi * np.arange(rows)[:, None] / PERIOD + np.arange(targets))
    return level * (3 + week + 0.3 * generator.normal(size=(rows, targets)))


def scale_of(column: Array, train: int, season: int) -> float | None:
    """Return the mean change over a season of the training rows: None where there is none."""
    for lag in (season, 1):
        changes = [abs(column[t] - column[t - lag]) for t in range(lag, train)]
        changes = [change for change in changes if not math.isnan(change)]
        if changes:
            mean = sum(changes) / len(changes)
            return mean if mean > 0 else None
    return None


def by_hand(task: SeriesTask, outputs: Array, split: Any, season: int) -> Metrics:
    """Return all scores of outputs, window by window and value by value."""
    columns = task.columns
    found: Metrics = {}
    names = columns.names[: task.targets]
    every: list[tuple[int, float, float | None]] = []
    for window, stop in enumerate(task.stops[split].tolist()):
        number = int(np.searchsorted(columns.bounds, stop - 1, side="right") - 1)
        first, end = columns.bounds[number : number + 2]
        train = split_bounds(int(end - first))["train"].end
        for place in range(task.targets):
            unit = scale_of(columns.values[first:end, place], train, season)
            for step in range(task.horizon):
                wanted = columns.values[stop + step, place]
                if not math.isnan(wanted):
                    error = abs(wanted - float(outputs[window, step, place]))
                    every.append((place, error, unit))
    for place, name in enumerate(names):
        mine = [(error, unit) for at, error, unit in every if at == place]
        found[f"rmse.{name}"] = math.sqrt(sum(e * e for e, _ in mine) / len(mine))
        found[f"mae.{name}"] = sum(e for e, _ in mine) / len(mine)
        found[f"mase.{name}"] = mean_of([e / u for e, u in mine if u])
    found["mase"] = mean_of([error / unit for _, error, unit in every if unit])
    if len(names) == 1:
        return {name: found[key] for name, key in ONE}
    return found


ONE = (("rmse", "rmse.y"), ("mae", "mae.y"), ("mase", "mase.y"))


def mean_of(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def scored(task: SeriesTask, outputs: Array, split: Any = "test") -> Metrics:
    """Return the scores of outputs as the trainer makes them: batch by batch."""
    tallies, start = [], 0
    for batch in task.evaluation(split, 5, 100_000):
        size = len(batch.targets)
        tallies.append(task.tally_batch(outputs[start : start + size], batch))
        start += size
    return task.metrics(total(tallies))


CASES: dict[str, tuple[list[Array], int, float, int | None]] = {
    "one series": ([wavy(120, level=1, seed=0)], 1, 0.0, PERIOD),
    "no season": ([wavy(120, level=1, seed=0)], 1, 0.0, 1),
    "missing values": ([wavy(150, level=4, seed=1)], 1, 0.2, PERIOD),
    "levels of 1 and 40,000": (
        [wavy(90, level=1, seed=2), wavy(110, level=40_000, seed=3)],
        1,
        0.0,
        PERIOD,
    ),
    "two targets of three series, with gaps": (
        [wavy(90 + 10 * i, level=10.0**i, seed=i, targets=2) for i in range(3)],
        2,
        0.15,
        PERIOD,
    ),
    "a series that never changes": (
        [wavy(90, level=1, seed=2), np.full((90, 1), 5.25), wavy(80, level=9, seed=4)],
        1,
        0.0,
        PERIOD,
    ),
    "a target that never changes": (
        [np.concatenate([wavy(100, level=1, seed=2), np.full((100, 1), 0.1)], axis=1)],
        2,
        0.0,
        PERIOD,
    ),
    "a series shorter than a season": (
        [wavy(120, level=1, seed=2), wavy(31, level=3, seed=5)],
        1,
        0.0,
        24,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_a_loop_over_windows_and_values(case: str) -> None:
    series, targets, missing, season = CASES[case]
    columns = made(series, missing=missing)
    policy: Missing = "indicator" if missing else "refuse"
    task = SeriesTask(
        columns, context=8, min_context=2, horizon=3, targets=targets, season=season, missing=policy
    )
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(len(task.stops["test"]), 3, targets)).astype(np.float32)
    found, wanted = scored(task, outputs), by_hand(task, outputs, "test", season or 1)
    found.pop("scaled_rmse", None)
    assert {name for name in found if found[name] is None} == {
        name for name in wanted if wanted[name] is None
    }
    numbers = [{k: v for k, v in scores.items() if v is not None} for scores in (found, wanted)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)
    undefined = case == "a target that never changes"
    assert (found.get("mase.z", 0.0) is None) == undefined


def test_seasonal_naive_is_1_on_the_rows_that_the_scale_is_of() -> None:
    rows = 100
    for season in (1, PERIOD):
        columns = made([wavy(rows, level=7, seed=1)])
        task = SeriesTask(columns, context=season, horizon=1, season=season)
        name = "naive_last" if season == 1 else "seasonal_naive"
        # With a horizon of 1 the windows of the training split forecast the rows after its first season.
        assert task.baselines("train", 10_000)[name]["mase"] == pytest.approx(1.0, rel=1e-12)


def test_each_window_counts_in_the_unit_of_its_own_series() -> None:
    small, large = wavy(100, level=1, seed=2), wavy(100, level=40_000, seed=2)
    both = SeriesTask(made([small, large]), context=8, horizon=2, season=PERIOD)
    alone = [
        SeriesTask(made([each]), context=8, horizon=2, season=PERIOD) for each in (small, large)
    ]
    means = [task.baselines("test", 1000)["naive_last"]["mase"] for task in alone]
    assert means[0] == pytest.approx(means[1])  # the same series in other units
    assert both.baselines("test", 1000)["naive_last"]["mase"] == pytest.approx(means[0])
    worse = both.baselines("test", 1000)["naive_last"]["rmse"]
    assert worse is not None
    assert worse > 20_000  # which is the large one's alone


def test_no_scale_is_undefined_and_never_a_number() -> None:
    task = SeriesTask(made([np.full((80, 1), 0.1)]), context=4, horizon=2)
    scores = scored(task, np.zeros((len(task.stops["test"]), 2, 1)))
    assert scores == {"rmse": pytest.approx(0.1), "mae": pytest.approx(0.1), "mase": None}
    assert task.baselines("test", 100)["naive_last"]["mase"] is None
    assert "'y' never changes in training: its MASE is undefined" in task.notes
    assert task.describe()["mase_scale"] == [None]
    assert task.describe()["mase_season"] == 1
    batch = next(task.evaluation("test", 4, 4))
    assert batch.units is not None
    assert np.isnan(batch.units).all()


def test_a_series_that_repeats_itself_exactly_has_no_scale() -> None:
    wave = 50 + np.sin(2 * np.pi * np.arange(200)[:, None] / 20)  # equal up to rounding
    task = SeriesTask(made([wave]), context=8, horizon=2)
    assert task.season == 20
    assert task.baselines("test", 100)["naive_last"]["mase"] is None
    assert any("does not change over a season of 20 table rows" in note for note in task.notes)
    level = 1e12 + np.arange(100.0)[:, None] % 2  # a swing of 1 at 1e12 is no rounding
    assert SeriesTask(made([level]), context=8, horizon=2, season=1).mase_scale.values == 1.0


@pytest.mark.parametrize(
    ("series", "season", "words"),
    [
        (
            [wavy(90, level=1, seed=0), np.full((90, 1), 3.0)],
            PERIOD,
            "does not change over a season of 7 table rows in training in 1 of 2 series: its MASE is that of the others",
        ),
        (
            [np.full((90, 1), 1.0), np.full((90, 1), 3.0)],
            None,
            "'y' never changes in training in 2 of 2 series: its MASE is undefined",
        ),
        (
            [wavy(90, level=1, seed=0), wavy(30, level=1, seed=1), wavy(31, level=1, seed=2)],
            24,
            "no two training values of 'y' of 2 of 3 series stand a season of 24 table rows apart",
        ),
        ([wavy(90, level=1, seed=0), wavy(80, level=1, seed=1)], PERIOD, None),
    ],
)
def test_what_has_no_scale_is_counted(
    series: list[Array], season: int | None, words: str | None
) -> None:
    task = SeriesTask(made(series), context=4, horizon=2, season=season)
    said = [finding.message for finding in task.findings if finding.kind == "mase"]
    assert len(said) == (words is not None)
    assert all(words in message for message in said if words)


def test_changes_across_a_gap_do_not_count() -> None:
    columns = made([np.arange(100.0)[:, None]])
    columns.values[50:] += 1000
    whole = SeriesTask(columns, context=4, horizon=2, season=1)
    assert whole.mase_scale.values[0, 0] == pytest.approx((68 + 1001) / 69)
    cut = made([np.arange(100.0)[:, None]], pieces=np.array([0, 50, 100]))
    cut.values[50:] += 1000
    assert SeriesTask(cut, context=4, horizon=2, season=1).mase_scale.values[0, 0] == 1.0


def test_long_series_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [wavy(400, level=3, seed=1), wavy(90, level=1, seed=2)]
    expected = SeriesTask(made(series), context=4, horizon=2, season=PERIOD).mase_scale.values
    monkeypatch.setattr("loopedge.tasks.season.CHUNK", 13)
    found = SeriesTask(made(series), context=4, horizon=2, season=PERIOD).mase_scale.values
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_target_that_was_never_asked_has_no_score() -> None:
    columns = made([wavy(100, level=1, seed=1, targets=2)])
    columns.values[85:, 1], columns.observed[85:, 1] = np.nan, False
    task = SeriesTask(columns, context=4, horizon=2, targets=2, missing="indicator")
    scores = scored(task, np.zeros((len(task.stops["test"]), 2, 2)))
    assert scores["rmse.z"] is scores["mae.z"] is scores["mase.z"] is None
    assert scores["mase"] == pytest.approx(scores["mase.y"])
    assert scores["rmse.y"] is not None


def test_a_rebuilt_task_has_the_season_of_the_model(tmp_path: Any) -> None:
    path = tmp_path / "x.csv"
    values = wavy(150, level=1, seed=0)[:, 0]
    path.write_text("y\n" + "\n".join(f"{value:.6f}" for value in values) + "\n")
    task = SeriesTask.from_file(path, targets=["y"], context=8, horizon=2, season=5)
    again = task_from_dict(task.describe(), data=path)
    assert isinstance(again, SeriesTask)
    assert again.mase_scale.season == 5
    np.testing.assert_array_equal(again.mase_scale.values, task.mase_scale.values)
    assert again.describe() == task.describe()


def test_mase_decides_where_several_series_are_scaled_each_by_its_own_windows() -> None:
    def metric(series: list[Array], **options: Any) -> str:
        return SeriesTask(made(series), context=8, horizon=2, **options).metric

    one, two = [wavy(100, level=1, seed=0)], [wavy(100, level=1, seed=i) for i in range(2)]
    assert metric(one, scaling="window") == "rmse"
    assert metric(two) == "rmse"
    assert metric(two, scaling="window") == "mase"
    both = [wavy(100, level=1, seed=i, targets=2) for i in range(2)]
    assert metric(both, targets=2) == "scaled_rmse"
    assert metric(both, targets=2, scaling="window") == "mase"
    still = [np.full((100, 1), 3.0), np.full((100, 1), 4.0)]
    assert metric(still, scaling="window") == "rmse"  # nothing to divide by
