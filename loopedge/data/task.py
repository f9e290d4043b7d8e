"""What a task is to training and calibration: batches, a score, and a description of itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError

__all__ = [
    "IGNORED",
    "SPLITS",
    "Array",
    "Batch",
    "Metrics",
    "Scaling",
    "Split",
    "Task",
    "generated_batches",
    "generator_of",
    "task_from_dict",
    "token_accuracy",
]

Array = npt.NDArray[Any]
Metrics = dict[str, float]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IGNORED = -100
"""Class of a position that is neither learned nor scored (what PyTorch's cross entropy skips)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Inputs of a model and what it should answer.

    Args:
        inputs: int64 (batch, sequence) or float32 (batch, sequence, features), raw units.
        targets: int64 classes, of shape (batch, sequence) with `IGNORED` where nothing is asked, or
            (batch,) for a model that reads the last position; or float32 (batch, horizon, outputs)
            in raw units, NaN where nothing was observed.
        attention_mask: int64 (batch, sequence), 1 = keep; None keeps all.
    """

    inputs: Array
    targets: Array
    attention_mask: Array | None = None

    def feeds(self, names: Sequence[str]) -> dict[str, Array]:
        """Return the inputs under the names of an exported graph's inputs, in their order.

        A graph that takes a mask where the batch has none gets one that keeps all; a mask that the
        graph does not take is an error, as padding would be read as data.

        Args:
            names: The inputs of the graph: the first, and ``attention_mask`` where it takes one.

        Raises:
            InputError: The batch is padded and the graph takes no mask.
        """
        first, *more = names
        mask = self.attention_mask
        if not more:
            if mask is not None:
                raise InputError(
                    "the samples are padded and the model takes no attention_mask",
                    hint="loopedge export --padding",
                )
            return {first: self.inputs}
        if mask is None:
            mask = np.ones(self.inputs.shape[:2], np.int64)
        return {first: self.inputs, **dict(zip(more, [mask], strict=True))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Mean and standard deviation of the training part: float32 (features,) and (outputs,)."""

    input_mean: Array
    input_scale: Array
    output_mean: Array
    output_scale: Array


class Task(Protocol):
    """A source of batches that is deterministic in (seed, split, step), torch-free."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def kind(self) -> Literal["tokens", "series"]:
        """Whether targets are classes or values."""
        ...

    @property
    def metric(self) -> str:
        """The key of `score` that decides which weights are best."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric."""
        ...

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` samples of a split; equal arguments and seed give equal samples."""
        ...

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield the same at most ``samples`` samples of a split each time, ``size`` at once."""
        ...

    def score(self, outputs: Array, targets: Array) -> Metrics:
        """Score the outputs of a whole split; `metric` is one of the keys."""
        ...

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score what needs no training, on the samples of `evaluation`."""
        ...

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a `LoopedConfig` that the task decides."""
        ...

    def scaling(self) -> Scaling | None:
        """Return the scaling to store in the model; None for tokens."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `task_from_dict` rebuilds the task; no paths."""
        ...


def generator_of(seed: int, split: Split, step: int) -> np.random.Generator:
    """Return the random generator of one batch."""
    return np.random.default_rng([seed, SPLITS.index(split), step])


def generated_batches(task: Task, split: Split, size: int, samples: int) -> Iterator[Batch]:
    """Yield ``samples`` samples of a generated split, ``size`` at once."""
    for step, start in enumerate(range(0, samples, size)):
        yield task.batch(split, min(size, samples - start), step)


def token_accuracy(outputs: Array, targets: Array) -> Metrics:
    """Score logits (..., classes) against classes (...), `IGNORED` positions left out.

    Returns:
        ``accuracy``: the share of right positions, 0 to 1; and, for sequences, ``sequence_accuracy``:
        the share of rows without a wrong position.
    """
    kept = targets != IGNORED
    right = outputs.argmax(axis=-1) == targets
    metrics = {"accuracy": float(right[kept].mean()) if kept.any() else 0.0}
    if targets.ndim > 1:
        metrics["sequence_accuracy"] = float((right | ~kept).all(axis=-1).mean())
    return metrics


def task_from_dict(
    description: Mapping[str, Any], *, data: str | Path | None = None, seed: int | None = None
) -> Task:
    """Rebuild the task that a checkpoint or an artifact describes.

    Args:
        description: What `Task.describe` returned: the key ``task`` of a ``model.pt``.
        data: The CSV file of a series; a description holds no paths.
        seed: Of the batches; default: the described one.

    Returns:
        The task.

    Raises:
        InputError: The task is unknown, a key is missing, or the data cannot be used.
    """
    from loopedge.data.edit_distance import EditDistanceTask
    from loopedge.data.series import SeriesTask
    from loopedge.data.sorting import SortingTask

    name = description.get("name")
    told_seed = int(description.get("seed", 0)) if seed is None else seed
    try:
        if name == SortingTask.name:
            return SortingTask(
                length=description["length"], vocab=description["vocab"], seed=told_seed
            )
        if name == EditDistanceTask.name:
            return EditDistanceTask(length=description["length"], seed=told_seed)
        if name == SeriesTask.name:
            if data is None:
                raise InputError("a series needs its data", hint="name the CSV file with --data")
            return SeriesTask.from_csv(
                data,
                target=description["target"],
                covariates=description["covariates"],
                context=description["context"],
                horizon=description["horizon"],
                interpolate=description["interpolate"],
                season=description["season"],
                time_column=description.get("time_column"),
                seed=told_seed,
            )
    except KeyError as error:
        raise InputError(f"the description of task {name!r} lacks {error.args[0]!r}") from error
    raise InputError(f"task {name!r} is not known", hint="loopedge train --help")
