"""Which forecasts the page plots: two of median error, one at the limit of the worst tenth; and what stands in them."""

from pathlib import Path

import numpy as np
import pytest

from loopedge.baselines.series.all import refitted, series_baselines
from loopedge.study.judging.statements import Candidate
from loopedge.study.plotted.choice import choose_windows, plot_windows
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from tests.table_models import TASK, repeating_model

LOOPED = Candidate(arm="looped", loops=2)


def test_the_middle_and_the_limit_of_the_worst_tenth_are_chosen() -> None:
    errors = np.array([5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0, 10.0])
    assert choose_windows(errors) == [("median", 0), ("median", 8), ("worst", 2)]
    errors[1] = np.nan
    assert [number for _, number in choose_windows(errors)] == [8, 4, 9]
    assert choose_windows(np.array([2.0, 1.0])) == [("median", 1), ("worst", 0)]
    assert choose_windows(np.array([1.0])) == [("median", 0)]
    assert choose_windows(np.array([np.nan])) == []


def table(path: Path, groups: str = "") -> SeriesTask:
    """Return a task of a sine, or of two."""
    heads = "g,y" if groups else "y"
    rows = [
        (f"{group}," if group else "") + f"{np.sin(row / 3) + 10 * number:.4f}"
        for number, group in enumerate(groups or [""])
        for row in range(200)
    ]
    path.write_text("\n".join([heads, *rows]) + "\n")
    more = {"group": "g"} if groups else {}
    return SeriesTask.from_file(path, targets=["y"], context=8, horizon=3, seed=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", ["", "ab"])
def test_a_window_holds_what_was_seen_forecast_and_observed(tmp_path: Path, groups: str) -> None:
    task = table(tmp_path / "t.csv", groups)
    sizes = {"context": 8, "min_context": 8, "horizon": 3, "mean": [0.0], "scale": [1.0]}
    model = repeating_model(tmp_path / "m.onnx", {**TASK, "covariates": [], **sizes})
    found = plot_windows(task, model, LOOPED, samples=64, baseline="ridge on lags")
    assert [window.chosen_by for window in found] == ["median", "median", "worst"]
    forecaster = refitted(task, "ridge on lags", 64)
    assert forecaster is not None
    for window in found:
        stop = task.evaluated_stops("test", 64)[window.sample]
        values = task.columns.values[:, 0]
        assert window.history == pytest.approx(values[stop - 8 : stop], abs=1e-5)
        assert window.truth == pytest.approx(values[stop : stop + 3], abs=1e-5)
        assert window.forecast == pytest.approx(values[stop - 3 : stop], abs=1e-4)
        expected = np.sqrt(np.mean((values[stop : stop + 3] - values[stop - 3 : stop]) ** 2))
        assert window.error == pytest.approx(expected, abs=1e-4)
        assert window.baseline == pytest.approx(forecaster(np.array([stop]))[0, :, 0], abs=1e-4)
        assert window.series == (groups[int(stop > 200)] if groups else None)
        assert window.target == "y"


def test_a_baseline_that_is_fitted_again_forecasts_what_was_scored(tmp_path: Path) -> None:
    task = table(tmp_path / "t.csv")
    scores = {one.name: one for one in series_baselines(task, 64)}
    for name in ("window mean", "ridge on lags"):
        forecaster = refitted(task, name, 64)
        assert forecaster is not None
        stops = task.evaluated_stops("test", 64)
        truth = np.stack([task.columns.values[stop : stop + 3, 0] for stop in stops])
        error = np.sqrt(np.mean((forecaster(stops)[..., 0] - truth) ** 2))
        assert scores[name].test["rmse"] == pytest.approx(error)
    assert refitted(task, "tea leaves", 64) is None


def test_other_tasks_have_no_windows(tmp_path: Path) -> None:
    task = SortingTask(length=4, vocab=6)
    assert plot_windows(task, tmp_path / "none.onnx", LOOPED, samples=8) == []
