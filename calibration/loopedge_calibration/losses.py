"""What int8 may lose: the task's own metric, or the error of the outputs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.agreement import at_kept, noise_ratio
from loopedge.graph.inputs import chooses_loops, generate_inputs, sample_count
from loopedge.graph.offsets import OutputOffsets
from loopedge.options import option
from loopedge.quantizer.held_out.samples import HeldOut, Judge
from loopedge.quantizer.noise import longest_generated
from loopedge.quantizer.source import FloatSource
from loopedge.runtime.inputs import MASK
from loopedge.runtime.session import Session
from loopedge_calibration.readers import BATCH, Feeds
from loopedge_calibration.samples import described_task

__all__ = [
    "Loss",
    "RelativeError",
    "TaskDrop",
    "choose_loss",
    "refuse_task",
]

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
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
        held_out: The samples.
        judge: Scores them.
        reference: The float model.
    """

    def __init__(self, held_out: HeldOut, judge: Judge, reference: Session) -> None:
        self.name = judge.task.metric
        self._judge = judge
        self.batches: list[Feeds] = list(held_out.batches)
        self.samples = held_out.samples
        self.float_score: float | None = self._score(reference)

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the loss of a model and its score."""
        score = self._score(session)
        return self._judge.loss(self.float_score or 0.0, score), score

    def noise(self, session: Session) -> float:
        """Return the loss that rounding in float32 alone causes."""
        measured, task = abs(self.of(session)[0]), self._judge.task
        if task.kind == "classes" and task.higher_is_better:  # a count
            return measured
        return max(measured, float(np.finfo(np.float32).eps) * abs(self.float_score or 0.0))

    def _score(self, session: Session) -> float:
        return self._judge.score(
            [
                self._judge.tally(number, session.run(feeds))
                for number, feeds in enumerate(self.batches)
            ]
        )


class RelativeError:
    """||y - ref|| / ||ref|| over all outputs on all samples: 10^(-SQNR / 20).

    Args:
        batches: Inputs to run on.
        reference: The float model.
        offsets: What it adds to its outputs last: no part of the signal.
    """

    name = "relative-error"
    float_score: float | None = None

    def __init__(
        self,
        batches: Iterable[Feeds],
        reference: Session,
        offsets: OutputOffsets | None = None,
    ) -> None:
        self.batches = list(batches)
        self._offsets, self._axes = offsets, reference.axes
        if not self.batches:
            raise InputError("the data holds no sample", hint=option("data", "samples.npz"))
        self._exact = [self._judged(reference, feeds) for feeds in self.batches]

    @property
    def samples(self) -> int:
        """Samples that are compared."""
        return sum(sample_count(feeds, self._axes) for feeds in self.batches)

    def of(self, session: Session) -> tuple[float, float | None]:
        """Return the error of a model; there is no score."""
        given = (self._judged(session, feeds) for feeds in self.batches)
        return noise_ratio(self._exact, given).share, None

    def _judged(self, session: Session, feeds: Feeds) -> Outputs:
        """Return the model's own outputs at the positions that a mask keeps, without what is added last."""
        outputs = session.metadata.answers(session.run(feeds))
        judged = {}
        for name, array in outputs.items():
            kept = at_kept(array, feeds.get(MASK))
            offset = None
            if self._offsets is not None:
                offset = self._offsets.at_kept(name, array, feeds)
            judged[name] = kept if offset is None else kept.astype(np.float64) - offset
        return judged

    def noise(self, session: Session) -> float:
        """Return the error that rounding in float32 alone causes."""
        return max(self.of(session)[0], float(np.finfo(np.float32).eps))


def choose_loss(
    source: FloatSource,
    metric: str | None,
    held_out: HeldOut | None = None,
    *,
    threads: int | None = None,
) -> Loss:
    """Return what a budget is measured in.

    Args:
        source: The float model.
        metric: ``task``, ``relative-error``, or None: the task's where it is known and fits the
            data, else the relative error.
        held_out: Samples that did not calibrate. Without them the relative error is measured on generated
            inputs.
        threads: Threads of ONNX Runtime.

    Raises:
        InputError: The metric is ``task`` and the model knows none, or gives too little for it.
    """
    judge = None if held_out is None else held_out.judge
    if metric == "task" and judge is None:
        refuse_task(source)
    reference = Session(source.reference.path, threads=threads)
    if held_out is not None and judge is not None and metric != "relative-error":
        return TaskDrop(held_out, judge, reference)
    batches: Iterable[Feeds] = map(_generated(source.graph), range(GENERATED_BATCHES))
    return RelativeError(
        batches if held_out is None else held_out.batches, reference, OutputOffsets(source.graph)
    )


def refuse_task(source: FloatSource) -> NoReturn:
    """Say why the task's own metric cannot be measured.

    Raises:
        InputError: Always.
    """
    alone = option("metric", "relative-error")
    if source.metadata.logits == "last":
        raise InputError(
            f"{source.path} gives the logits of the last position alone, the task's metric needs "
            "all",
            hint=f"{alone}, or {option('logits', 'all', command='export')}",
        )
    described_task(source.graph, None, source.path)  # says which data the task needs
    raise InputError("the model does not say what it was trained on", hint=alone)


def _generated(graph: ir.Model) -> Callable[[int], Feeds]:
    """Return what makes a batch of inputs from a seed; the loop count is left to the session."""
    counts = {value.name for value in graph.graph.inputs if chooses_loops(value)}

    def make(seed: int) -> Feeds:
        length = longest_generated(graph)
        feeds = generate_inputs(graph, batch=BATCH, sequence=length, seed=seed)
        return {name: array for name, array in feeds.items() if name not in counts}

    return make
