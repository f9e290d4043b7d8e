"""A task that gets better with every step, and one that never does, whatever a model learns."""

from typing import Any

from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.metrics import Metrics, Tally
from loopedge.tasks.task import Batch, Split

__all__ = ["Constant", "Improving"]


class Improving(SortingTask):
    """Sorting, whose accuracy counts the steps: the weights of the last evaluation are the best.

    A run is resumed exactly only if these are compared. What a few steps really learn depends on rounding.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.steps = 0

    def batch(self, split: Split, size: int, step: int) -> Batch:
        if split == "train":
            self.steps = step + 1
        return super().batch(split, size, step)

    def metrics(self, tally: Tally) -> Metrics:
        return {**super().metrics(tally), "accuracy": float(self.steps)}


class Constant(SortingTask):
    """Sorting, whose accuracy stays what it is."""

    def metrics(self, tally: Tally) -> Metrics:
        return {**super().metrics(tally), "accuracy": 0.5}
