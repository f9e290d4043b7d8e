"""In-context regression, generated: learn a function from the points that stand in the sequence.

After Garg et al. (2022, arXiv 2208.01066); Xu & Sato (2025) train on the decision trees.
"""

import abc
from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.metrics import Metrics, Tally, total
from loopedge.tasks.task import Array, Batch, Scaling, Split, Task, generator_of

__all__ = ["InContextTask", "LinearInContextTask", "TreeInContextTask", "values_of_trees"]


class InContextTask(Task):
    """Predict f(x) of every point from the points before it; each sample has its own f.

    A sample is ``x1 y1 x2 y2 .. xn``: float32 (batch, 2 points - 1, dims + 1). A position of an x
    holds it in the first ``dims`` features and 0 in the last, a position of a y holds it in the
    last and 0 before. The model is causal and answers at the positions of the xs; the targets are
    NaN elsewhere. An x is standard normal.

    Args:
        dims: Features of an x, 1 to 100.
        points: Points of a sequence, 2 to 500.
        seed: Of the batches.

    Raises:
        InputError: ``dims`` or ``points`` is out of range.
    """

    kind = "values"
    metric = "mse"
    higher_is_better = False

    def __init__(self, *, dims: int, points: int, seed: int = 0) -> None:
        for option, value, least, most in (("dims", dims, 1, 100), ("points", points, 2, 500)):
            if not least <= value <= most:
                raise InputError(f"{self.name}: {option} is {value}, allowed {least} to {most}")
        self.dims = dims
        self.points = points
        self.seed = seed

    @abc.abstractmethod
    def values(self, generator: np.random.Generator, xs: Array) -> Array:
        """Draw a function per sample and apply it to float64 (batch, points, dims)."""

    @abc.abstractmethod
    def predict(self, xs: Array, ys: Array) -> dict[str, Array]:
        """Return what simple learners predict at each point from those before: (batch, points)."""

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` functions with their points."""
        generator = generator_of(self.seed, split, step)
        xs = generator.standard_normal((size, self.points, self.dims))
        ys = self.values(generator, xs)
        inputs = np.zeros((size, 2 * self.points - 1, self.dims + 1), np.float32)
        inputs[:, ::2, :-1] = xs
        inputs[:, 1::2, -1] = ys[:, :-1]
        targets = np.full((size, 2 * self.points - 1, 1), np.nan)
        targets[:, ::2, 0] = ys
        return Batch(inputs=inputs, targets=targets)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Add up squared errors of all points, and of the last one."""
        last = outputs[:, -1].astype(np.float64) - targets[:, -1]
        return super().tally(outputs, targets) | {
            "last_squared": float(np.square(last).sum()),
            "last_asked": last.size,
        }

    def metrics(self, tally: Tally) -> Metrics:
        """Return the mean squared error ``mse`` of all points, and ``last_mse`` of the last one."""
        return {
            "mse": tally["squared"] / max(1, tally["asked"]),
            "last_mse": tally["last_squared"] / max(1, tally["last_asked"]),
        }

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score 0, the mean of all functions, and the simple learners of `predict`."""
        tallies: dict[str, list[Tally]] = {}
        for batch in self.evaluation(split, samples, samples):
            targets = batch.targets[:, ::2]
            xs, ys = (a.astype(np.float64) for a in (batch.inputs[:, ::2, :-1], targets[:, :, 0]))
            answers = {"zero": np.zeros_like(ys), **self.predict(xs, ys)}
            for name, answer in answers.items():
                tallies.setdefault(name, []).append(self.tally(answer[:, :, None], targets))
        return {name: self.metrics(total(found)) for name, found in tallies.items()}

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that answers everywhere."""
        return {
            "features": self.dims + 1,
            "outputs": 1,
            "read": "all",
            "causal": True,
            "max_length": 2 * self.points - 1,
        }


class LinearInContextTask(InContextTask):
    """Linear functions y = w x of standard normal w, with normal noise if asked.

    Args:
        dims: Features of an x, 1 to 100.
        points: Points of a sequence, 2 to 500.
        noise: Standard deviation of the noise in y, 0 to 1000.
        seed: Of the batches.

    Raises:
        InputError: A number is out of range.
    """

    name = "in-context-linear"
    settings = ("dims", "points", "noise")
    upper_bounds = ("least_squares",)

    def __init__(self, *, dims: int, points: int, noise: float = 0.0, seed: int = 0) -> None:
        super().__init__(dims=dims, points=points, seed=seed)
        if not 0 <= noise <= 1000:
            raise InputError(f"{self.name}: noise is {noise}, allowed 0 to 1000")
        self.noise = noise

    def values(self, generator: np.random.Generator, xs: Array) -> Array:
        """Draw weights (batch, dims, 1) and noise."""
        weights = generator.standard_normal((len(xs), self.dims, 1))
        values: Array = (xs @ weights)[:, :, 0]
        return values + self.noise * generator.standard_normal(values.shape)

    def predict(self, xs: Array, ys: Array) -> dict[str, Array]:
        """Return the predictions of least squares."""
        return {"least_squares": predict_least_squares(xs, ys)}

    def scaling(self) -> Scaling | None:
        """Return the standard deviations of x and y, which are known: 1, and that of w x."""
        spread = np.float32(np.sqrt(self.dims + self.noise**2))
        scale = np.ones(self.dims + 1, np.float32)
        scale[-1] = spread
        return Scaling(
            input_mean=np.zeros_like(scale),
            input_scale=scale,
            output_mean=np.zeros(1, np.float32),
            output_scale=scale[-1:],
        )


class TreeInContextTask(InContextTask):
    """Full decision trees: a node asks whether one feature of x is above 0, leaves are normal.

    Args:
        dims: Features of an x, 1 to 100.
        points: Points of a sequence, 2 to 500.
        depth: Questions from the root to a leaf, 1 to 12.
        seed: Of the batches.

    Raises:
        InputError: A number is out of range.
    """

    name = "in-context-trees"
    settings = ("dims", "points", "depth")

    def __init__(self, *, dims: int, points: int, depth: int = 3, seed: int = 0) -> None:
        super().__init__(dims=dims, points=points, seed=seed)
        if not 1 <= depth <= 12:
            raise InputError(f"{self.name}: depth is {depth}, allowed 1 to 12")
        self.depth = depth

    def values(self, generator: np.random.Generator, xs: Array) -> Array:
        """Draw the feature that each node asks for, uniformly, and the leaves."""
        axes = generator.integers(0, self.dims, size=(len(xs), 2**self.depth - 1))
        leaves = generator.standard_normal((len(xs), 2**self.depth))
        return values_of_trees(axes, leaves, xs)

    def predict(self, xs: Array, ys: Array) -> dict[str, Array]:
        """Return the value of the nearest point before."""
        return {"nearest_point": predict_nearest(xs, ys)}


def values_of_trees(axes: Array, leaves: Array, xs: Array) -> Array:
    """Send points down full binary trees, one tree per sample.

    Args:
        axes: int64 (batch, 2 ** depth - 1): the feature a node asks for; the children of node i are
            2 i + 1, where it is at most 0, and 2 i + 2.
        leaves: float64 (batch, 2 ** depth), left to right.
        xs: float64 (batch, points, dims).

    Returns:
        float64 (batch, points).
    """
    sample = np.arange(len(xs))[:, None]
    point = np.arange(xs.shape[1])
    node = np.zeros(xs.shape[:2], np.int64)
    while node[0, 0] < axes.shape[1]:
        node = 2 * node + 1 + (xs[sample, point, axes[sample, node]] > 0)
    values: Array = leaves[sample, node - axes.shape[1]]
    return values


def predict_least_squares(xs: Array, ys: Array) -> Array:
    """Fit each prefix of a sequence and predict the next point; 0 for the first.

    Where there are fewer points than features, the shortest weights that fit are taken.

    Args:
        xs: float64 (batch, points, dims).
        ys: float64 (batch, points).

    Returns:
        float64 (batch, points).
    """
    predicted = np.zeros_like(ys)
    dims = xs.shape[2]
    for seen in range(1, xs.shape[1]):
        x, y = xs[:, :seen], ys[:, :seen, None]
        turned = x.transpose(0, 2, 1)
        if seen < dims:
            weights = turned @ np.linalg.solve(x @ turned, y)
        else:
            weights = np.linalg.solve(turned @ x, turned @ y)
        predicted[:, seen] = (xs[:, seen, None] @ weights)[:, 0, 0]
    return predicted


def predict_nearest(xs: Array, ys: Array) -> Array:
    """Predict the value of the nearest earlier point; 0 for the first.

    Args:
        xs: float64 (batch, points, dims).
        ys: float64 (batch, points).

    Returns:
        float64 (batch, points).
    """
    predicted = np.zeros_like(ys)
    for seen in range(1, xs.shape[1]):
        distances = np.square(xs[:, :seen] - xs[:, seen, None]).sum(axis=-1)
        predicted[:, seen] = np.take_along_axis(ys, distances.argmin(axis=1)[:, None], 1)[:, 0]
    return predicted
