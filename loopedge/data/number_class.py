"""Tasks whose answer is a number, told as a class: how far off it is, and the commonest answer."""

import numpy as np

from loopedge.data.metrics import Metrics, Tally
from loopedge.data.task import Array, Split, Task

__all__ = ["NumberClassTask"]


class NumberClassTask(Task):
    """Tell a number from 0 to ``classes - 1``, one per sample.

    Attributes:
        classes: How many numbers there are.
    """

    classes: int

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Count right numbers of logits (batch, classes), and add up how far off they are."""
        error = np.abs(outputs.argmax(axis=-1) - targets).sum()
        return super().tally(outputs, targets) | {"error": int(error)}

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``accuracy`` and ``mean_abs_error``."""
        return super().metrics(tally) | {"mean_abs_error": tally["error"] / tally["asked"]}

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score the most frequent number of as many training samples."""
        seen = np.bincount(self.batch("train", samples, 0).targets, minlength=self.classes)
        targets = np.concatenate([b.targets for b in self.evaluation(split, samples, samples)])
        logits = np.broadcast_to(seen, (len(targets), self.classes))
        return {"most_frequent": self.score(logits, targets)}
