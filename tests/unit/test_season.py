"""Which season is found; the baseline of the last one: where it is out of reach, and one that never is in reach."""

from pathlib import Path

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
from loopedge.tasks.season import find_season
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import task_from_dict


def of(values: list[float], edges: list[int] | None = None) -> Columns:
    column = np.array(values, np.float64)[:, None]
    return Columns(
        names=("y",),
        values=column,
        observed=np.ones(column.shape, bool),
        edges=None if edges is None else np.array(edges, np.int64),
        series=() if edges is None else tuple(map(str, range(len(edges) - 1))),
    )


def test_the_last_value_stands_in_where_the_season_is_out_of_reach() -> None:
    # Targets of test are the rows 17 .. 19 of both series; one season is reached in the longer alone.
    rng = np.random.default_rng(0)
    short, long = rng.normal(size=20), rng.normal(size=100)
    columns = of([*short, *long], [0, 20, 120])
    task = SeriesTask(columns, context=2, horizon=1, season=30, group="shop")
    errors = [short[row] - short[row - 1] for row in range(17, 20)]
    errors += [long[row] - long[row - 30] for row in range(85, 100)]
    found = task.baselines("test", 1000)["seasonal_naive"]["rmse"]
    assert found == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=1e-6)
    tallied = sum(len(batch.targets) for batch in task.evaluation("test", 64, 1000))
    assert tallied == len(errors)


def test_a_season_that_no_window_reaches_is_refused() -> None:
    columns = of(list(range(40)))
    assert "seasonal_naive" in SeriesTask(columns, context=2, horizon=1, season=39).baselines(
        "train", 100
    )
    with pytest.raises(InputError, match="season is 40, at most 39 rows stand before a window"):
        SeriesTask(columns, context=2, horizon=1, season=40)


def test_a_shorter_table_may_be_given_for_calibration(tmp_path: Path) -> None:
    long, short = tmp_path / "long.csv", tmp_path / "short.csv"
    for path, rows in ((long, 400), (short, 30)):
        path.write_text("y\n" + "".join(f"{row % 40}\n" for row in range(rows)))
    task = SeriesTask.from_file(long, targets=["y"], context=2, horizon=1)
    assert task.season == 40
    assert task_from_dict(task.describe(), data=short).describe()["season"] == 40


DAY = np.resize([0.0] * 7 + [1.0] * 10 + [0.5] * 7, 8000)


def strongest_lag(values: np.ndarray) -> int:
    """Return the lag from 12 rows on with the highest autocorrelation, sum by sum."""
    centred = values - values.mean()
    lags = range(12, len(values) // 2)
    sums = [float(centred[lag:] @ centred[:-lag]) for lag in lags]
    return lags[int(np.argmax(sums))]


def test_a_season_is_named_and_not_a_multiple_of_it() -> None:
    multiples = 0
    for seed in range(12):
        values = DAY[:2000] / DAY.std() + np.random.default_rng(seed).normal(size=2000)
        multiples += strongest_lag(values) > 25  # what noise lifted above the peak at 24
        assert find_season(values) == 24
    assert multiples > 3


@pytest.mark.parametrize(("period", "found"), [(23.9, 24), (12.0, 12), (50.25, 50)])
def test_a_season_between_two_rows_is_the_nearer_one(period: float, found: int) -> None:
    rows = np.arange(16_000)
    noise = np.random.default_rng(4).normal(size=len(rows))
    assert find_season(np.sqrt(2) * np.sin(2 * np.pi * rows / period) + 0.5 * noise) == found


def test_a_week_stays_a_week_where_its_days_differ() -> None:
    rows = np.arange(8000)
    week = DAY / DAY.std() * np.where(rows // 24 % 7 < 5, 1.0, 0.5)
    values = week + 0.3 * np.random.default_rng(5).normal(size=len(rows))
    changes = [
        float(np.square(values[168:] - values[168 - lag : -lag]).mean()) for lag in (24, 168)
    ]
    assert changes[0] > 1.1 * changes[1]
    assert find_season(values) == 168
    # With so much noise that a day ahead is hardly worse than a week, the day is the season.
    noisy = week + 1.5 * np.random.default_rng(5).normal(size=len(rows))
    assert find_season(noisy) == 24


def test_columns_count_alike_whatever_their_unit() -> None:
    rows, draw = np.arange(4000), np.random.default_rng(6)
    day, week = (np.sqrt(2) * np.sin(2 * np.pi * rows / lag) for lag in (24, 168))
    both = np.stack([day, 0.2 * day + week], axis=1) + 0.1 * draw.normal(size=(4000, 2))
    assert find_season(both) == 168
    assert find_season(both * [1e6, 1e-3]) == 168
    assert find_season(both[:, :1]) == 24
