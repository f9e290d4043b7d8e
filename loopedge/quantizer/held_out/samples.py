"""The samples that a quantized file is measured on, and what the model's task asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loopedge.graph.metadata import ITERATIONS_OUTPUT
from loopedge.tasks.metrics import Metrics, Tally, metric_value, total
from loopedge.tasks.task import Batch, Task

__all__ = ["KINDS", "Feeds", "HeldOut", "Judge", "Kind"]

FEW_BATCHES = 8

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Kind = Literal["validation", "data", "calibrating", "generated"]
KINDS: dict[Kind, str] = {
    "validation": "of the task's validation part",
    "data": "held out of the data",
    "calibrating": "that also calibrated",
    "generated": "generated",
}
"""Where samples come from, as people read it after a number of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A task and what it asks, batch by batch: it scores outputs by the task's own metric."""

    task: Task
    batches: Sequence[Batch]

    def tally(self, number: int, outputs: Mapping[str, Array]) -> Tally:
        """Return what a batch adds to the score."""
        return self.task.tally_batch(self.answer(outputs), self.batches[number])

    def answer(self, outputs: Mapping[str, Array]) -> Array:
        """Return the output that answers the task: the first one."""
        return outputs[next(name for name in outputs if name != ITERATIONS_OUTPUT)]

    def scores(self, tallies: Sequence[Tally]) -> Metrics:
        """Return all metrics of some batches."""
        return self.task.metrics(total(tallies))

    def score(self, tallies: Sequence[Tally]) -> float:
        """Return the task's metric of some batches; NaN where it is undefined."""
        return metric_value(self.scores(tallies), self.task.metric)

    def loss(self, exact: float, given: float) -> float:
        """Return by how much a score is worse than the float model's, in its units."""
        drop = exact - given if self.task.higher_is_better else given - exact
        return drop if np.isfinite(drop) else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Samples that a quantized file is measured on.

    Args:
        kind: Where they come from; ``calibrating``: nothing could be held out.
        batches: Input name to array, the first axis the samples.
        places: What messages call each sample, batch by batch.
        judge: The task's metric; None where it is not known.
        calibrating: Samples that calibrate; None where none do.
        calibrating_of: Samples that they were chosen from; None: as many as one likes.
        notes: What a person should know of the data.
        clipped: Of a static scheme by linear, the share of the values that it reads which lie outside the range
            of each iteration.
    """

    kind: Kind
    batches: Sequence[Feeds]
    places: Sequence[Sequence[str]]
    judge: Judge | None = None
    calibrating: int | None = None
    calibrating_of: int | None = None
    notes: tuple[str, ...] = ()
    clipped: dict[str, list[float]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples there are."""
        return sum(map(len, self.places))

    def few(self) -> list[Feeds]:
        """Return at most `FEW_BATCHES` batches, evenly spread: what is measured within the model is so on these."""
        return [self.batches[number] for number in self.few_numbers()]

    def few_numbers(self) -> list[int]:
        """Return which batches `few` returns."""
        count = len(self.batches)
        if count <= FEW_BATCHES:
            return list(range(count))
        return [int(at) for at in np.linspace(0, count - 1, FEW_BATCHES).round()]
