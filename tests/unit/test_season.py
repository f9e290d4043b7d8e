"""The baseline of the last season: where it is out of reach, and a season that never is in reach."""

from pathlib import Path

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns
from loopedge.errors import InputError
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
