"""Training on tables: several targets, gaps that the model sees as a mask, padded windows, classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.data.tables.columns import Columns
from loopedge.model.checkpoint import load_checkpoint
from loopedge.tasks.labelled_series import LabelledSeriesTask
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train


def waves(periods: tuple[float, ...], rows: int, *, missing: float) -> Columns:
    """Series i is a wave of period i beside its multiple; values are missing at random."""
    generator = np.random.default_rng(0)
    values = []
    for period in periods:
        wave = np.sin(np.arange(rows) / period + generator.uniform(0, 6))
        values.append(np.stack([50 + 10 * wave, 3 - 0.1 * wave], axis=1))
    stacked = np.concatenate(values)
    observed = generator.random(stacked.shape) >= missing
    stacked[~observed] = np.nan
    return Columns(
        names=("y", "z"),
        values=stacked,
        observed=observed,
        edges=np.arange(len(periods) + 1, dtype=np.int64) * rows,
        series=tuple(f"s{i}" for i in range(len(periods))),
        labels=("slow", "fast"),
        codes=np.repeat([int(period < 3) for period in periods], rows).astype(np.int32),
    )


def forecast() -> Task:
    columns = waves((2.5, 3.5), 200, missing=0.1)
    return SeriesTask(
        columns,
        context=12,
        min_context=6,
        horizon=3,
        targets=2,
        missing="indicator",
        group="shop",
    )


def classes() -> Task:
    columns = waves((1.5, 5.0) * 30, 16, missing=0.1)
    return LabelledSeriesTask(
        columns, label="kind", context=20, min_context=8, missing="indicator", group="shop"
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [forecast, classes])
def test_a_baseline_is_beaten(tmp_path: Path, make: Any) -> None:
    task: Task = make()
    # From this start the bars are far off with every seed that was tried.
    model = make_model_config(task, d_model=16, heads=2, loops=2, gate_init=1.0, init_std=0.09)
    assert model.missing
    assert model.padding
    config = make_train_config(steps=120, batch_size=32, lr=5e-3, evaluate_every=40, samples=128)
    result = train(task, model, config, tmp_path / "m.pt")
    ours = metric_value(result.test, task.metric)
    baseline = "naive_last" if task.kind == "values" else "most_frequent"
    known = metric_value(result.baselines[baseline], task.metric)
    assert np.isfinite(ours)
    if task.higher_is_better:
        assert ours > known + 0.2
    else:
        assert ours < 0.8 * known
    described = dict(load_checkpoint(tmp_path / "m.pt")["task"])
    assert described.pop("intervals", None) == result.intervals
    assert described == task.describe()
