"""What int8 may lose: the task's own metric, or the error of the outputs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.agreement import noise_ratio
from loopedge.graph.inputs import chooses_loops, generate_inputs, sample_count
from loopedge.graph.offsets import output_offsets
from loopedge.options import option
from loopedge.quantizer.noise import longest_generated
from loopedge.quantizer.source import FloatSource
from loopedge.runtime.session import Session
from loopedge.tasks.metrics import total
from loopedge.tasks.task import Task
from loopedge_calibration.readers import BATCH, Feeds, Samples, described_task

__all__ = [
    "METRICS",
    "Loss",
    "Metric",
    "RelativeError",
    "TaskDrop",
    "choose_loss",
]

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
Metric = Literal["task", "relative-error"]
METRICS: tuple[Metric, ...] = ("task", "relative-error")

TASK_SAMPLES = 512
"""Samples of the validation part that a task's metric is measured on."""

GENERATED_BATCHES = 4


class Loss(Protocol):
    """What a budget is measured in.

    ``float_score`` is the float model's value of the task's metric, None where there is no task;
    ``batches`` are the inputs that the loss is measured on.
    """

    name: str
    float_score: float | None
    batches: list[Feeds]

    @property
    def samples(self) -> int:
        """Samples that the loss is measured on."""
        ...

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the loss of a model, and its score where there is a task."""
        ...

    def noise(self, session: Session) -> float:
        """Return the loss that rounding in float32 alone causes.

        Args:
            session: The float model, on another number of threads.
        """
        ...


class TaskDrop:
    """By how much the task's own metric gets worse, in its units.

    Args:
        task: Gives the samples of the validation part, and scores them.
        reference: The float model.
    """

    def __init__(self, task: Task, reference: Session) -> None:
        self.name = task.metric
        self._task = task
        batches = list(task.evaluation("validation", BATCH * 8, TASK_SAMPLES))
        names = reference.expected.sampled
        self.batches: list[Feeds] = [batch.feeds(names) for batch in batches]
        self._targets = [batch.targets for batch in batches]
        self.float_score: float | None = self._score(reference)

    @property
    def samples(self) -> int:
        """Samples that are scored."""
        return sum(map(len, self._targets))

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the loss of a model and its score."""
        score = self._score(session)
        drop = (self.float_score or 0.0) - score
        drop = drop if self._task.higher_is_better else -drop
        return (drop if np.isfinite(drop) else float("inf")), score

    def noise(self, session: Session) -> float:
        """Return the loss that rounding in float32 alone causes."""
        measured = abs(self.of(session)[0])
        if self._task.kind == "classes" and self._task.higher_is_better:  # a count
            return measured
        return max(measured, float(np.finfo(np.float32).eps) * abs(self.float_score or 0.0))

    def _score(self, session: Session) -> float:
        name = session.output_names[0]
        tallies = (
            self._task.tally(session.run(feeds)[name], targets)
            for feeds, targets in zip(self.batches, self._targets, strict=True)
        )
        return self._task.metrics(total(tallies))[self.name]


class RelativeError:
    """||y - ref|| / ||ref|| over all outputs on all samples: 10^(-SQNR / 20).

    Args:
        batches: Inputs to run on.
        reference: The float model.
        offsets: What it adds to its outputs last, by output: no part of the signal.
    """

    name = "relative-error"
    float_score: float | None = None

    def __init__(
        self,
        batches: Iterable[Feeds],
        reference: Session,
        offsets: Mapping[str, Array] | None = None,
    ) -> None:
        self.batches = list(batches)
        self._offsets, self._axes = offsets or {}, reference.axes
        if not self.batches:
            raise InputError("the data holds no sample", hint=option("data", "samples.npz"))
        self._exact = [reference.run(feeds) for feeds in self.batches]

    @property
    def samples(self) -> int:
        """Samples that are compared."""
        return sum(sample_count(feeds, self._axes) for feeds in self.batches)

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the error of a model; there is no score."""
        given = map(session.run, self.batches)
        return noise_ratio(self._exact, given, self._offsets).share, None

    def noise(self, session: Session) -> float:
        """Return the error that rounding in float32 alone causes."""
        return max(self.of(session)[0], float(np.finfo(np.float32).eps))


def choose_loss(
    source: FloatSource,
    metric: str | None,
    *,
    data: str | Path | None = None,
    samples: int = 128,
    threads: int | None = None,
) -> Loss:
    """Return what a budget is measured in.

    Args:
        source: The float model.
        metric: ``task``, ``relative-error``, or None: the task's where it is known and fits the
            data, else the relative error.
        data: What `Samples` reads. Without it the relative error is measured on the task's
            validation part, or on generated inputs.
        samples: Most samples of the relative error.
        threads: Threads of ONNX Runtime.

    Raises:
        InputError: The metric is ``task`` and the model knows none, or gives too little for it.
    """
    task = None
    if source.metadata.logits == "last":
        if metric == "task":
            alone = option("metric", "relative-error")
            raise InputError(
                f"{source.path} gives the logits of the last position alone, the task's metric needs "
                "all",
                hint=f"{alone}, or {option('logits', 'all', command='export')}",
            )
        known = data is not None
    else:
        task = _known_task(source, metric, data)
        known = data is not None or task is not None
    reference = Session(source.path, threads=threads)
    if task is not None and metric != "relative-error":
        return TaskDrop(task, reference)
    batches: Iterable[Feeds] = map(_generated(source.graph), range(GENERATED_BATCHES))
    if known:
        batches = Samples(
            data, source.graph, samples=samples, split="validation", artifact=source.path
        )
    return RelativeError(batches, reference, output_offsets(source.graph))


def _known_task(source: FloatSource, metric: str | None, data: str | Path | None) -> Task | None:
    """Return the task that a model was trained on, where it is known and fits the data."""
    try:
        task = described_task(source.graph, data, source.path)
    except InputError:  # without its file, or with other data than the task's
        if metric == "task":
            raise
        return None
    if metric == "task" and task is None:
        raise InputError(
            "the model does not say what it was trained on",
            hint=option("metric", "relative-error"),
        )
    return task


def _generated(graph: ir.Model) -> Callable[[int], Feeds]:
    """Return what makes a batch of inputs from a seed; the loop count is left to the session."""
    counts = {value.name for value in graph.graph.inputs if chooses_loops(value)}

    def make(seed: int) -> Feeds:
        length = longest_generated(graph)
        feeds = generate_inputs(graph, batch=BATCH, sequence=length, seed=seed)
        return {name: array for name, array in feeds.items() if name not in counts}

    return make
