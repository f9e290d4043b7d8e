"""In-context regression: the functions, the layout, the score, and what simple learners reach."""

from typing import Any

import numpy as np
import pytest

from loopedge.errors import InputError
from loopedge.tasks.generated.in_context import (
    InContextTask,
    LinearInContextTask,
    TreeInContextTask,
    predict_least_squares,
    predict_nearest,
    values_of_trees,
)
from loopedge.tasks.metrics import metric_value
from loopedge.tasks.task import Array, task_from_dict

TASKS: dict[str, InContextTask] = {
    "linear": LinearInContextTask(dims=3, points=7),
    "noisy": LinearInContextTask(dims=3, points=7, noise=0.5),
    "trees": TreeInContextTask(dims=4, points=9, depth=2),
}


def points_of(task: InContextTask, size: int, step: int = 0) -> tuple[Array, Array]:
    """Return xs and ys of a batch, float64."""
    batch = task.batch("train", size, step)
    xs = batch.inputs[:, ::2, :-1].astype(np.float64)
    return xs, batch.targets[:, ::2, 0].astype(np.float64)


@pytest.mark.parametrize("name", TASKS)
def test_points_and_values_take_turns_and_values_are_asked_at_the_points(name: str) -> None:
    task = TASKS[name]
    batch = task.batch("train", 5, 1)
    length = 2 * task.points - 1
    assert batch.inputs.shape == (5, length, task.dims + 1)
    assert batch.targets.shape == (5, length, 1)
    assert batch.inputs.dtype == np.float32
    assert batch.targets.dtype == np.float64
    assert (batch.inputs[:, ::2, -1] == 0).all()
    assert (batch.inputs[:, 1::2, :-1] == 0).all()
    np.testing.assert_array_equal(
        batch.inputs[:, 1::2, -1], batch.targets[:, :-1:2, 0].astype(np.float32)
    )
    assert np.isnan(batch.targets[:, 1::2]).all()
    assert not np.isnan(batch.targets[:, ::2]).any()


def test_values_are_linear_in_the_points_each_sample_with_weights_of_its_own() -> None:
    xs, ys = points_of(TASKS["linear"], 6)
    weights = [np.linalg.lstsq(x, y, rcond=None) for x, y in zip(xs, ys, strict=True)]
    assert all(residual < 1e-10 for _, (residual,), _, _ in weights)
    assert len({tuple(found[0].round(3)) for found in weights}) == 6


@pytest.mark.parametrize(("name", "spread"), [("linear", 3**0.5), ("noisy", 3.25**0.5)])
def test_the_scaling_is_the_spread_of_the_values(name: str, spread: float) -> None:
    scaling = TASKS[name].scaling()
    assert scaling is not None
    assert scaling.output_scale.tolist() == pytest.approx([spread])
    assert scaling.input_scale.tolist() == pytest.approx([1, 1, 1, spread])
    _, ys = points_of(TASKS[name], 4000)
    assert ys.std() == pytest.approx(spread, rel=0.05)
    assert TASKS["trees"].scaling() is None


def test_a_tree_asks_and_goes_left_or_right() -> None:
    generator = np.random.default_rng(0)
    axes = generator.integers(0, 4, size=(3, 7))
    leaves = generator.standard_normal((3, 8))
    xs = generator.standard_normal((3, 20, 4))
    values = values_of_trees(axes, leaves, xs)

    def value(sample: int, x: Array, node: int) -> float:
        if node >= 7:
            return float(leaves[sample, node - 7])
        right = x[axes[sample, node]] > 0
        return value(sample, x, 2 * node + (2 if right else 1))

    expected = [[value(sample, x, 0) for x in xs[sample]] for sample in range(3)]
    assert values.tolist() == expected
    assert len(set(values[0])) > 4


def test_trees_have_normal_leaves_and_use_every_feature() -> None:
    _, ys = points_of(TASKS["trees"], 3000)
    assert ys.mean() == pytest.approx(0, abs=0.05)
    assert ys.std() == pytest.approx(1, rel=0.05)
    assert all(1 <= len(set(row.round(5))) <= 4 for row in ys)
    axes = np.arange(4)
    xs = np.eye(4)[None] - 0.5
    found = [values_of_trees(np.array([[axis]]), np.array([[1.0, 2.0]]), xs)[0] for axis in axes]
    np.testing.assert_array_equal(found, 1 + np.eye(4))


@pytest.mark.parametrize("name", ["linear", "noisy"])
def test_least_squares_fits_each_prefix(name: str) -> None:
    xs, ys = points_of(TASKS[name], 5)
    found = predict_least_squares(xs, ys)
    assert (found[:, 0] == 0).all()
    for x, y, row in zip(xs, ys, found, strict=True):
        for seen in range(1, 7):
            weights = np.linalg.lstsq(x[:seen], y[:seen], rcond=None)[0]
            assert row[seen] == pytest.approx(x[seen] @ weights, rel=1e-5, abs=1e-6)


def test_the_nearest_point_before_is_found() -> None:
    xs, ys = points_of(TASKS["trees"], 5)
    found = predict_nearest(xs, ys)
    for x, y, row in zip(xs, ys, found, strict=True):
        nearest = [np.linalg.norm(x[:k] - x[k], axis=1).argmin() for k in range(1, 9)]
        assert row.tolist() == [0, *(y[i] for i in nearest)]


def test_the_score_is_the_squared_error_of_all_points_and_of_the_last() -> None:
    task = TASKS["trees"]
    batch = task.batch("test", 4, 0)
    outputs = np.nan_to_num(batch.targets) + 1
    outputs[:, -1] += 1
    assert task.score(outputs, batch.targets) == pytest.approx({"mse": (8 + 4) / 9, "last_mse": 4})


def test_what_needs_no_training() -> None:
    linear = TASKS["linear"].baselines("test", 300)
    assert linear["zero"]["mse"] == pytest.approx(3, rel=0.2)
    assert metric_value(linear["least_squares"], "mse") < 0.6 * metric_value(linear["zero"], "mse")
    assert metric_value(linear["least_squares"], "last_mse") < 1e-6
    trees = TreeInContextTask(dims=2, points=30, depth=2).baselines("test", 300)
    assert trees["zero"]["mse"] == pytest.approx(1, rel=0.2)
    assert metric_value(trees["nearest_point"], "last_mse") < 0.6


def test_the_baselines_see_the_samples_of_an_evaluation() -> None:
    task = TASKS["trees"]
    targets = np.concatenate([b.targets for b in task.evaluation("test", 128, 200)])
    zero = task.score(np.zeros_like(targets), targets)
    assert task.baselines("test", 200)["zero"] == pytest.approx(zero)


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_seed_split_and_step(name: str) -> None:
    task = TASKS[name]
    batch = task.batch("validation", 4, 2)
    rebuilt = task_from_dict(task.describe()).batch("validation", 4, 2)
    np.testing.assert_array_equal(batch.inputs, rebuilt.inputs)
    np.testing.assert_array_equal(batch.targets, rebuilt.targets)
    others = [
        task.batch("validation", 4, 3),
        task.batch("test", 4, 2),
        task_from_dict(task.describe(), seed=3).batch("validation", 4, 2),
    ]
    assert all((other.inputs != batch.inputs).any() for other in others)


@pytest.mark.parametrize(
    ("kind", "sizes", "words"),
    [
        (LinearInContextTask, {"dims": 0}, "in-context-linear: dims is 0, allowed 1 to 100"),
        (TreeInContextTask, {"dims": 101}, "in-context-trees: dims is 101, allowed 1 to 100"),
        (LinearInContextTask, {"points": 1}, "points is 1, allowed 2 to 500"),
        (LinearInContextTask, {"noise": -1.0}, "noise is -1.0, allowed 0 to 1000"),
        (LinearInContextTask, {"noise": float("nan")}, "noise is nan, allowed 0 to 1000"),
        (TreeInContextTask, {"depth": 13}, "depth is 13, allowed 1 to 12"),
    ],
)
def test_sizes_out_of_range_are_refused(
    kind: type[InContextTask], sizes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        kind(**{"dims": 3, "points": 5, **sizes})
