"""Windows scaled by themselves: numpy and PyTorch agree, levels do not matter, nothing is divided by nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from loopedge.data.tables.columns import Columns
from loopedge.data.tables.window_scaling import (
    WINDOW_FLOOR,
    deviations_by_series,
    nearby_mean,
    typical_deviation,
    window_statistics,
)
from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.contract import as_tuple
from loopedge.model.transformer import LoopedTransformer
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Batch, task_from_dict
from loopedge.trainer.steps.objective import Objective, inputs_of, outputs_of, scale_of
from loopedge_calibration.survey import _Spread

RANDOM = np.random.default_rng(0)


def two_levels(rows: int = 200, *, low: float = 1.0, high: float = 40_000.0) -> Columns:
    """Return two series of the same shape, each swinging by a tenth of its level."""
    shape = np.sin(np.arange(rows) / 4) + 0.1 * RANDOM.normal(size=rows)
    values = np.concatenate([low * (1 + 0.1 * shape), high * (1 + 0.1 * shape)])[:, None]
    return Columns(
        names=("y",),
        values=values,
        observed=np.ones(values.shape, bool),
        edges=np.array([0, rows, 2 * rows]),
        series=("low", "high"),
    )


def task_of(columns: Columns, **options: Any) -> SeriesTask:
    settings = {"context": 12, "horizon": 3, "group": "name", "scaling": "window", **options}
    return SeriesTask(columns, **settings)


def model_of(task: SeriesTask, **fields: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(
        LoopedConfig(**task.model_fields(), d_model=16, heads=2, loops=2, gate_init=0.5, **fields)
    ).eval()
    scaling = task.scaling()
    assert scaling is not None
    names = ("input_mean", "input_scale", "output_mean", "output_scale")
    model.set_scaling(*(torch.from_numpy(getattr(scaling, name)) for name in names))
    return model


@torch.no_grad()
def answer(model: LoopedTransformer, batch: Batch) -> Any:
    return outputs_of(model, inputs_of(batch, torch.device("cpu"))).numpy()


def test_statistics_are_those_of_the_values_that_are_there() -> None:
    inputs = 5 + RANDOM.normal(size=(3, 7, 2))
    inputs[0, 2, 1] = np.nan
    kept = np.ones((3, 7), np.int64)
    kept[1, :4] = 0
    mean, deviation = window_statistics(inputs, kept, np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(mean[0, 1], np.nanmean(inputs[0, :, 1]))
    np.testing.assert_allclose(mean[1], inputs[1, 4:].mean(axis=0))
    np.testing.assert_allclose(deviation[1], inputs[1, 4:].std(axis=0))
    np.testing.assert_allclose(deviation[2], inputs[2].std(axis=0))


def test_a_window_that_stands_still_has_the_floor_and_an_empty_one_the_mean() -> None:
    inputs = np.full((2, 4, 1), 8.0)
    inputs[1] = np.nan
    mean, deviation = window_statistics(inputs, None, np.array([3.0]), np.array([2.0]))
    np.testing.assert_allclose(mean[:, 0], [8, 3])
    np.testing.assert_allclose(deviation[:, 0], WINDOW_FLOOR * 2)


@pytest.mark.parametrize("level", [0.0, 1e12])
def test_the_deviation_of_a_series_is_the_median_of_its_windows(level: float) -> None:
    values = level + np.cumsum(RANDOM.normal(size=(60, 1)), axis=0)
    columns = Columns(names=("y",), values=values, observed=np.ones(values.shape, bool))
    stops = np.arange(8, 61)
    (found,) = deviations_by_series(columns, stops, 8)
    each = [values[stop - 8 : stop, 0].std() for stop in stops]
    np.testing.assert_allclose(found, [np.median(each)], rtol=1e-3 if level else 1e-12)


def test_the_series_that_swings_least_sets_the_floor() -> None:
    by_series = np.array([[4000.0], [0.1], [np.nan]])
    np.testing.assert_array_equal(typical_deviation(by_series, [7.0]), [0.1])
    np.testing.assert_array_equal(typical_deviation(by_series[2:], [7.0]), [7.0])


def test_a_mean_that_float32_would_lose_digits_by_is_left_out() -> None:
    mean, scale = np.array([400.0, 20_000.0]), np.array([1.0, 0.1])
    np.testing.assert_array_equal(nearby_mean(mean, scale), [400.0, 0.0])


@pytest.mark.parametrize("missing", ["refuse", "indicator"])
@pytest.mark.parametrize("min_context", [None, 4])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("base", [0.0, 1e9])
def test_a_level_and_a_unit_come_back_as_they_went_in(
    missing: str, min_context: int | None, positions: str, base: float
) -> None:
    columns = two_levels()
    columns.values[:] += base
    if missing == "indicator":
        columns.values[::9], columns.observed[::9] = np.nan, False
    task = task_of(columns, missing=missing, min_context=min_context)
    assert task.wide is (base > 0)
    model, batch = model_of(task, positions=positions), task.batch("train", 32, 0)
    before = answer(model, batch)
    assert before.dtype == (np.float64 if base else np.float32)
    moved = Batch(
        inputs=(batch.inputs + np.asarray(4 * 40_000, batch.inputs.dtype)),
        targets=batch.targets,
        attention_mask=batch.attention_mask,
    )
    swing = task.window_units(task.stops["train"]).max()
    if base:  # in float32 the moved inputs themselves are rounded
        assert np.abs(answer(model, moved) - before - 4 * 40_000).max() < 1e-6 * swing
    doubled = Batch(
        inputs=(batch.inputs - np.asarray(base, batch.inputs.dtype)) * 2
        + np.asarray(base, batch.inputs.dtype),
        targets=batch.targets,
        attention_mask=batch.attention_mask,
    )
    wanted = (before - base) * 2 + base
    units = np.abs(before - base).max()
    assert np.abs(answer(model, doubled) - wanted).max() < 1e-4 * units


def test_series_of_one_shape_get_forecasts_of_one_shape() -> None:
    rows = 200
    task = task_of(two_levels(rows))
    stops = np.arange(20, 60)
    model = model_of(task)
    low, high = (answer(model, task._cut(s)) for s in (stops, stops + rows))
    np.testing.assert_allclose(high / 40_000, low, rtol=1e-4)


def test_padding_changes_nothing_of_what_a_window_is_scaled_by() -> None:
    task = task_of(two_levels(), min_context=4)
    stops = np.array([5, 6, 205])
    batch = task._cut(stops)
    first = np.array([0, 0, 200])
    wanted = [
        task.columns.values[begin:stop, 0].std() for begin, stop in zip(first, stops, strict=True)
    ]
    np.testing.assert_allclose(task.window_units(stops)[:, 0], wanted, rtol=1e-6)
    model = model_of(task)
    spoiled = batch.inputs.copy()
    spoiled[batch.attention_mask == 0] = 1e6  # what stands in padding is not read
    other = Batch(inputs=spoiled, targets=batch.targets, attention_mask=batch.attention_mask)
    np.testing.assert_allclose(answer(model, other), answer(model, batch), rtol=1e-5)


def test_the_loss_is_in_units_of_each_window() -> None:
    task = task_of(two_levels())
    stops = np.array([50, 250])
    batch = task._cut(stops)
    model = model_of(task)
    objective = Objective(kind="values")
    inputs = inputs_of(batch, torch.device("cpu"))
    outputs = outputs_of(model, inputs).detach()
    scale = scale_of(model, batch)
    loss = float(objective(outputs, torch.from_numpy(batch.targets), inputs, scale))
    error = (outputs.numpy() - batch.targets) / task.window_units(stops)[:, None]
    assert loss == pytest.approx(float(np.square(error).sum()), rel=1e-4)
    assert batch.scales is not None
    assert batch.rows(slice(1, 2)).scales == pytest.approx(batch.scales[1:])


def test_a_window_that_stands_still_does_not_rule_the_loss() -> None:
    columns = two_levels()
    columns.values[230:250] = 40_000
    task = task_of(columns)
    (units,), given = task.window_units(np.array([245])), task._cut(np.array([245])).scales
    assert given is not None
    (scales,) = given
    np.testing.assert_allclose(units, WINDOW_FLOOR * task._scaling.input_scale)
    usual = task.series_deviation[1]
    np.testing.assert_allclose(scales, WINDOW_FLOOR * usual)
    assert scales > 1000 * units


def test_units_of_column_scaling_are_its_deviation() -> None:
    task = task_of(two_levels(), scaling="column")
    assert task._cut(np.array([20])).scales is None
    np.testing.assert_allclose(
        task.window_units(np.array([20, 30])), np.full((2, 1), task._scaling.output_scale[0])
    )


def test_the_description_rebuilds_it(tmp_path: Any) -> None:
    columns = two_levels()
    names = np.repeat(["low", "high"], 200)
    path = tmp_path / "t.csv"
    rows = "".join(
        f"{n},{v!r}\n" for n, v in zip(names, columns.values[:, 0].tolist(), strict=True)
    )
    path.write_text("name,y\n" + rows, encoding="utf-8")
    task = SeriesTask.from_file(
        path, targets=["y"], context=12, horizon=3, group="name", scaling="window"
    )
    described = task.describe()
    assert described["scaling"] == "window"
    again = task_from_dict(described, data=path)
    assert isinstance(again, SeriesTask)
    assert again.scaled_by == "window"
    assert again.describe() == described
    assert task.at_origins(2)[0].scaled_by == "window"
    for old in ("scaling", "wide"):
        del described[old]
    before = task_from_dict(described, data=path)
    assert isinstance(before, SeriesTask)
    assert before.scaled_by == "column"
    assert not before.wide
    with pytest.raises(InputError, match="damaged: scaling"):
        task_from_dict({**described, "scaling": "rows"}, data=path)


def test_what_cannot_be_scaled_by_window_is_refused() -> None:
    with pytest.raises(InputError, match="column or window is needed"):
        task_of(two_levels(), scaling="series")
    for fields in (
        {"vocab_size": 5},
        {"features": 2, "read": "all"},
        {"features": 1, "outputs": 2, "read": "last"},
    ):
        with pytest.raises(ValidationError, match="scaling 'window'"):
            LoopedConfig(scaling="window", **fields)


@pytest.mark.parametrize("level", [0.0, 1e9, 1e12])
def test_the_spread_of_samples_keeps_its_digits_at_any_level(level: float) -> None:
    values = level + RANDOM.normal(size=(40, 6, 2)) * [1.0, 100.0]
    values[::7, 2, 0] = np.nan
    spread = _Spread.of(values[:10])
    for part in (values[10:11], values[11:], np.full((1, 6, 2), np.nan)):
        spread.add(_Spread.of(part))
    wanted = np.nanstd(values.reshape(-1, 2), axis=0)
    np.testing.assert_allclose(spread.deviation, wanted, rtol=1e-3 if level else 1e-9)


def test_each_target_comes_back_through_its_own_column() -> None:
    rows = 120
    values = RANDOM.normal(size=(rows, 3)) * [1.0, 50.0, 1e-3] + [5.0, 9_000.0, 2.0]
    columns = Columns(names=("a", "b", "c"), values=values, observed=np.ones(values.shape, bool))
    task = SeriesTask(columns, context=12, horizon=3, targets=2, scaling="window")
    model, batch = model_of(task), task.batch("train", 8, 0)
    before = answer(model, batch)
    assert before.shape == (8, 3, 2)
    for place in range(3):
        moved = batch.inputs.copy()
        moved[:, :, place] += np.float32(64 * task.column_deviation[place])
        found = answer(model, Batch(inputs=moved, targets=batch.targets)) - before
        wanted = np.zeros(3)
        wanted[place] = np.float32(64 * task.column_deviation[place])
        shares = (found - wanted[:2]) / task.column_deviation[:2]
        assert np.abs(shares).max() < 1e-2, place


def test_no_class_hangs_on_the_level() -> None:
    config = LoopedConfig(
        features=1, outputs=3, classify=True, read="last", scaling="window", d_model=16, heads=2
    )
    torch.manual_seed(0)
    model = LoopedTransformer(config).eval()
    inputs = torch.randn(4, 9, 1)
    with torch.no_grad():
        before, after = (as_tuple(model(x))[0] for x in (inputs, 8 * inputs + 64))
    assert before.shape == (4, 3)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
