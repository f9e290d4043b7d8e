"""What a task is to training and calibration: batches, a score, and a description of itself."""

import abc
import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loopedge.data.description import TABLES, description_problem
from loopedge.data.split import SPLITS, Split
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option
from loopedge.tasks.metrics import (
    IGNORED,
    Metrics,
    Tally,
    class_metrics,
    class_tally,
    value_metrics,
    value_tally,
)

__all__ = [
    "HOMES",
    "SPLITS",
    "Array",
    "Batch",
    "Scaling",
    "Split",
    "Task",
    "generator_of",
    "task_from_dict",
]


DEFAULTS = {"classes": ("accuracy", True), "values": ("rmse", False)}
"""Metric and its direction, of each kind of target."""

FINGERPRINTED = 64
"""Samples of either split that tell data apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Inputs of a model and what it should answer.

    Args:
        inputs: int64 (batch, sequence) or float32 (batch, sequence, features), raw units; float64 for a model
            that is wide.
        targets: int64 classes, of shape (batch, sequence) with `IGNORED` where nothing is asked, or
            (batch,) for a model that reads the last position; or float64 (batch, horizon, outputs)
            in raw units, NaN where nothing was observed; a task of one's own may give float32.
        attention_mask: int64 (batch, sequence), 1 = keep; None keeps all.
        units: float64 (batch, outputs): what an absolute error of each sample is divided by where samples of
            different levels are averaged; NaN where there is no such unit. None: the task has none.
        scales: float64 (batch, outputs): what the loss divides the errors of each sample by, in raw units;
            None: the deviation of the training part, for all samples alike.
    """

    inputs: Array
    targets: Array
    attention_mask: Array | None = None
    units: Array | None = None
    scales: Array | None = None

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
                    hint="loopedge export model.pt --padding",
                )
            return {first: self.inputs}
        if mask is None:
            mask = np.ones(self.inputs.shape[:2], np.int64)
        return {first: self.inputs, **dict(zip(more, [mask], strict=True))}

    def rows(self, part: slice | Array) -> "Batch":
        """Return some of the samples, their arrays contiguous."""
        mask, units, scales = self.attention_mask, self.units, self.scales
        return Batch(
            inputs=np.ascontiguousarray(self.inputs[part]),
            targets=np.ascontiguousarray(self.targets[part]),
            attention_mask=None if mask is None else np.ascontiguousarray(mask[part]),
            units=None if units is None else np.ascontiguousarray(units[part]),
            scales=None if scales is None else np.ascontiguousarray(scales[part]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Mean and standard deviation of the training part: float64 (features,) and (outputs,)."""

    input_mean: Array
    input_scale: Array
    output_mean: Array
    output_scale: Array


class Task(abc.ABC):
    """A source of batches that is deterministic in (seed, split, step), and their score; torch-free.

    A subclass defines `batch` and `model_fields`. The rest has defaults that suit generated data:
    classes are scored by accuracy, values by root mean square error.

    Attributes:
        name: As on the command line.
        kind: Whether targets are classes (cross entropy) or values (mean squared error).
        metric: The key of `metrics` that decides which weights are best; default: ``accuracy`` of
            classes, ``rmse`` of values.
        higher_is_better: The direction of the metric; default: that of the kind's own metrics.
        settings: Attributes that are also the constructor's arguments: what rebuilds the task.
        seed: Of the batches.
        notes: What a person should know of the data, a line each.
        input_files: Files that the samples are made from: no output may be one of them.
        named_parts: Whether each split is a file of its own: rebuilt from one file, all splits are that one.
        upper_bounds: Baselines that no model is expected to beat, such as the best estimate there is.
        positions: How a pilot marks them: ``learned`` where they are places, as of a grid, and not distances.
    """

    name: str
    kind: Literal["classes", "values"] = "classes"
    metric: str = "accuracy"
    higher_is_better: bool = True
    settings: tuple[str, ...] = ()
    seed: int = 0
    notes: tuple[str, ...] = ()
    input_files: tuple[Path, ...] = ()
    upper_bounds: tuple[str, ...] = ()
    named_parts: bool = False
    positions: Literal["learned", "rotary"] = "rotary"

    def __init_subclass__(cls, **options: Any) -> None:
        """Take the metric and its direction from a kind that is changed, where they are not given."""
        super().__init_subclass__(**options)
        before = next(base.kind for base in cls.__mro__[1:] if issubclass(base, Task))
        if cls.kind != before and cls.kind in DEFAULTS:
            own, (metric, higher) = vars(cls), DEFAULTS[cls.kind]
            cls.metric = own.get("metric", metric)
            cls.higher_is_better = own.get("higher_is_better", higher)

    @abc.abstractmethod
    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` samples of a split; equal arguments and seed give equal samples."""

    @abc.abstractmethod
    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a `LoopedConfig` that the task decides."""

    def evaluation(self, split: Split, size: int, samples: int) -> Iterator[Batch]:
        """Yield the same at most ``samples`` samples of a split each time, at most ``size`` at once.

        They are drawn `DRAWN` at a time: ``size`` cuts what was drawn and decides no sample.
        """
        for step, start in enumerate(range(0, samples, DRAWN)):
            drawn = self.batch(split, min(DRAWN, samples - start), step)
            for first in range(0, len(drawn.inputs), size):
                yield drawn.rows(slice(first, first + size))

    def available(self, split: Split) -> int | None:
        """Return how many different samples `evaluation` can yield of a split; None: as many as one likes."""
        return None

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Return sums of outputs against targets; a subclass says here what it scores."""
        return (class_tally if self.kind == "classes" else value_tally)(outputs, targets)

    def tally_batch(self, outputs: Array, batch: Batch) -> Tally:
        """Return what a batch adds to the score: this is what everything that scores a model calls.

        By default what `tally` makes of the targets; a subclass whose score takes more of a batch than
        its targets, such as the units of each sample, says so here.
        """
        return self.tally(outputs, batch.targets)

    def metrics(self, tally: Tally) -> Metrics:
        """Return the metrics of summed tallies; `metric` is one of the keys."""
        return (class_metrics if self.kind == "classes" else value_metrics)(tally)

    def score(self, outputs: Array, targets: Array) -> Metrics:
        """Return the metrics of one array of outputs, as far as they hang on the targets alone."""
        return self.metrics(self.tally(outputs, targets))

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score what needs no training, on the samples of `evaluation`."""
        return {}

    def shortest(self, *, each_position: bool) -> int:
        """Return the fewest positions that an output saw in training, as far as some samples show.

        Args:
            each_position: The model is causal and answers at each position, which sees those before it alone.
        """
        batch = self.batch("train", FINGERPRINTED, 0)
        if batch.inputs.ndim < 2:
            return 1
        mask = batch.attention_mask
        kept = np.ones(batch.inputs.shape[:2], bool) if mask is None else mask > 0
        seen = kept.sum(axis=1)
        if each_position and batch.targets.shape[:2] == kept.shape:
            targets = batch.targets.reshape(*kept.shape, -1)
            asked = (targets != IGNORED).any(-1) & ~np.isnan(targets).all(-1) & kept
            rows = asked.any(axis=1)
            seen = (kept.cumsum(axis=1) * asked)[rows]
            seen = np.where(seen > 0, seen, kept.shape[1])
        return max(1, int(seen.min(initial=kept.shape[1])))

    def scaling(self) -> Scaling | None:
        """Return the scaling to store in the model; None: inputs and outputs are taken as they are."""
        return None

    def fingerprint(self) -> str:
        """Return the SHA-256 of some samples, which distinguishes this data from other data."""
        digest = hashlib.sha256()
        tested = next(iter(self.evaluation("test", FINGERPRINTED, FINGERPRINTED)), None)
        for batch in (self.batch("train", FINGERPRINTED, 0), tested):
            for array in () if batch is None else (batch.inputs, batch.targets):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def companions(self) -> dict[str, str]:
        """Return texts that the exported model needs beside it, by file name suffix."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return plain values from which `task_from_dict` rebuilds the task; no paths."""
        return {
            "name": self.name,
            "kind": self.kind,
            **{name: getattr(self, name) for name in self.settings},
            "seed": self.seed,
            "metric": self.metric,
        }

    @classmethod
    def from_description(
        cls, description: Mapping[str, Any], *, data: str | Path | None, seed: int
    ) -> "Task":
        """Rebuild a task from what `describe` returned; from ``settings`` alone unless overridden.

        Args:
            description: Names and values; under ``companions`` the texts of `companions`.
            data: The user's file or folder, for tasks that read one.
            seed: Of the batches.

        Raises:
            InputError: The data is missing or cannot be used, or the task is generated and reads none.
            KeyError: The description lacks a key.
        """
        if data is not None:
            raise InputError(
                f"the task {cls.name} is generated: it does not read {data}",
                hint="leave the data out, or give samples as .npz",
            )
        make: Callable[..., Task] = cls
        return make(**{name: description[name] for name in cls.settings}, seed=seed)


DRAWN = 128
"""Generated samples of one step of an evaluation: models and baselines are scored on the same."""

HOMES = {
    "countdown": "loopedge.tasks.generated.countdown:CountdownTask",
    "edit-distance": "loopedge.tasks.generated.edit_distance:EditDistanceTask",
    "in-context-linear": "loopedge.tasks.generated.in_context:LinearInContextTask",
    "in-context-trees": "loopedge.tasks.generated.in_context:TreeInContextTask",
    "lcs": "loopedge.tasks.generated.lcs:LcsTask",
    "pairs": "loopedge.tasks.pairs:PairsTask",
    "series": "loopedge.tasks.series:SeriesTask",
    "series-labels": "loopedge.tasks.labelled_series:LabelledSeriesTask",
    "sorting": "loopedge.tasks.generated.sorting:SortingTask",
    "sudoku": "loopedge.tasks.generated.sudoku:SudokuTask",
    "text": "loopedge.tasks.text:TextTask",
}
"""Where the tasks live that a description can name."""


def generator_of(seed: int, split: Split, step: int) -> np.random.Generator:
    """Return the random generator of one batch."""
    return np.random.default_rng([seed, SPLITS.index(split), step])


def task_from_dict(
    description: Mapping[str, Any],
    *,
    data: str | Path | None = None,
    seed: int | None = None,
    companions: Mapping[str, str] | None = None,
) -> Task:
    """Rebuild the task that a checkpoint or an artifact describes.

    Args:
        description: What `Task.describe` returned: the key ``task`` of a ``model.pt``.
        data: The user's file or folder, where the task reads one; a description holds no paths.
        seed: Of the batches; default: the described one.
        companions: What `Task.companions` returned, where it was anything.

    Returns:
        The task.

    Raises:
        InputError: The task is unknown, a key is missing, or the data cannot be used.
    """
    name = description.get("name")
    if not isinstance(name, str) or name not in HOMES:
        raise InputError(
            f"task {name!r} is none that loopedge knows to rebuild",
            hint=option("data", "samples.npz"),
        )
    module, _, kind = HOMES[name].partition(":")
    task: type[Task] = getattr(importlib.import_module(module), kind)
    problem = description_problem(description, complete=False)
    if problem is not None:
        raise InputError(f"the description of task {name!r} is damaged: {problem}")
    chosen_seed = int(description.get("seed", 0)) if seed is None else seed
    try:
        described = {**description, "companions": dict(companions or {})}
        return task.from_description(described, data=data, seed=chosen_seed)
    except InputError as error:
        if name in TABLES and data is not None and error.hint is not None:
            # The options that hints name are those of training; who rebuilds a task has none of them.
            hint = f"mend the table, or train anew: {error.hint}"
            raise InputError(error.message, hint=hint) from error
        raise
    except KeyError as error:
        raise InputError(f"the description of task {name!r} lacks {error.args[0]!r}") from error
