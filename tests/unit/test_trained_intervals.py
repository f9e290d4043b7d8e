"""What `train` says of a forecast's errors and intervals is what the written model does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopedge
from loopedge.data.tables.columns import Columns
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.intervals import Intervals
from loopedge.tasks.metrics import total
from loopedge.tasks.series import SeriesTask
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import TrainResult, train
from loopedge.trainer.rolling import train_rolling

pytestmark = pytest.mark.slow

SAMPLES = 50


def levels(*, constant: bool = False) -> SeriesTask:
    """Return a forecast of two series of levels 1 and 1,000."""
    rows, generator = np.arange(220), np.random.default_rng(0)
    waves = [3 + np.sin(rows / 4) + 0.2 * generator.normal(size=220) for _ in range(2)]
    if constant:
        waves = [np.full(220, 3.0), np.full(220, 2.0)]
    values = np.concatenate([waves[0], 1000 * waves[1]])[:, None]
    columns = Columns(
        names=("y",),
        values=values,
        observed=np.ones(values.shape, bool),
        edges=np.array([0, 220, 440]),
        series=("small", "large"),
    )
    return SeriesTask(columns, context=20, min_context=5, horizon=3)


def trained(task: SeriesTask, target: Path, **options: Any) -> TrainResult:
    model = make_model_config(task, d_model=16, heads=2, loops=2)
    settings = {"steps": 6, "batch_size": 8, "samples": SAMPLES, "evaluate_every": 3, **options}
    return train(task, model, make_train_config(**settings), target)


def outputs_of(path: Path, task: SeriesTask, split: Any) -> Any:
    """Return what a written model gives on the windows that were scored."""
    model, found = loopedge.load(path), []
    for batch in task.evaluation(split, 7, SAMPLES):
        mask = batch.attention_mask
        assert mask is not None
        with torch.no_grad():
            answer = model(torch.from_numpy(batch.inputs), torch.from_numpy(mask))
        found.append((answer[0] if isinstance(answer, tuple) else answer).numpy())
    return np.concatenate(found)


def test_scores_and_intervals_are_those_of_the_written_model(tmp_path: Path) -> None:
    task, path = levels(), tmp_path / "m.pt"
    result = trained(task, path)
    validation, test = (outputs_of(path, task, split) for split in ("validation", "test"))
    batches = list(task.evaluation("test", SAMPLES, SAMPLES))
    scores = task.metrics(total(task.tally_batch(test, batch) for batch in batches))
    assert result.test == pytest.approx(scores, rel=1e-4)
    assert result.mase_season == task.mase_scale.season
    assert result.mase_scale == task.mase_scale.typical()

    described = load_checkpoint(path)["task"]
    assert described["intervals"] == result.intervals
    intervals = Intervals.of(described)
    assert intervals is not None
    assert intervals.unit == "window"
    assert intervals.windows == SAMPLES
    stops = task.evaluated_stops("validation", SAMPLES)
    units = np.array(
        [task.columns.values[max(0 if s < 220 else 220, s - 20) : s].std() for s in stops]
    )
    errors = np.abs(task._targets(stops) - validation)[:, :, 0] / units[:, None]
    for level, rank in ((80, 41), (95, 49)):  # ceil(51 p)
        (found,) = (each for each in intervals.levels if each.percent == level)
        np.testing.assert_allclose(found.high[:, 0], np.sort(errors, axis=0)[rank - 1], rtol=1e-4)

    (batch,) = batches
    around = intervals.around(test, intervals.units(batch.inputs, batch.attention_mask))
    assert result.intervals is not None
    for level in result.intervals["levels"]:
        low, high = around[level["level"]]
        inside = (low <= batch.targets) & (batch.targets <= high)
        assert level["coverage"] == pytest.approx(inside.mean(), abs=0.03)
        assert level["worst_series"] in {"small", "large"}


def test_a_resumed_run_has_the_same_intervals(tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818  stands for a kill
        pass

    class Unlucky(SeriesTask):
        stop = True

        def batch(self, split: Any, size: int, step: int) -> Any:
            if self.stop and split == "train" and step == 4:
                raise Stopped
            return super().batch(split, size, step)

    whole = trained(levels(), tmp_path / "whole.pt")
    task = levels()
    task.__class__ = Unlucky
    with pytest.raises(Stopped):
        trained(task, tmp_path / "m.pt", checkpoint_every=2)
    model = make_model_config(task, d_model=16, heads=2, loops=2)
    config = make_train_config(
        steps=6, batch_size=8, samples=SAMPLES, evaluate_every=3, checkpoint_every=2
    )
    task.__class__ = SeriesTask
    resumed = train(task, model, config, tmp_path / "m.pt", resume=True)
    assert resumed.resumed_from is not None
    assert resumed.intervals == whole.intervals
    assert (resumed.test, resumed.validation) == (whole.test, whole.validation)


def test_series_that_never_change_train_and_have_no_mase(tmp_path: Path) -> None:
    result = trained(levels(constant=True), tmp_path / "m.pt")
    assert result.test["mase"] is None
    assert result.validation["mase"] is None
    assert result.mase_scale == [None]
    lines = (tmp_path / "m.metrics.jsonl").read_text().splitlines()
    assert all('"mase": null' in line for line in lines)
    assert result.intervals is not None
    assert result.intervals["still_unit"] == [1.0]


def test_origins_whose_mase_is_undefined_have_no_mean_of_it(tmp_path: Path) -> None:
    task = levels(constant=True)
    tasks = task.at_origins(2)
    model = make_model_config(tasks[-1], d_model=16, heads=2, loops=2)
    config = make_train_config(steps=2, batch_size=4, samples=SAMPLES)
    result = train_rolling(tasks, model, config, tmp_path / "m.pt")
    assert result.mean["mase"] is None
    assert result.deviation["mase"] is None
    assert result.baselines_mean["naive_last"]["mase"] is None
    assert result.mean["rmse"] is not None
