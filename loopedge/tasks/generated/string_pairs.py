"""Tasks that ask for a number of two strings: its class, its score, and the commonest answer."""

import numpy as np

from loopedge.tasks.metrics import IGNORED, Metrics, Tally, class_tally
from loopedge.tasks.task import Array, Split, Task

__all__ = ["StringPairTask"]


class StringPairTask(Task):
    """Tell a number from 0 to ``classes - 1`` of ``first | second <sep>``, read at the last position.

    Attributes:
        sequence: Positions of a sample.
        classes: How many numbers there are.
        prefixes: Ask for it at each letter of the second string too, of what stands before.
    """

    sequence: int
    classes: int
    prefixes: bool

    def answers(self, numbers: Array, n2: Array) -> Array:
        """Return the targets of a batch.

        Args:
            numbers: int64 (batch, width + 1): at j that of the first j letters of the second string.
            n2: Lengths of the second strings, (batch,).

        Returns:
            int64 (batch,), that of the whole strings; with ``prefixes`` int64 (batch, sequence),
            that of each prefix at its last letter, that of the whole at ``<sep>`` too.
        """
        if not self.prefixes:
            whole: Array = numbers[np.arange(len(n2)), n2]
            return whole
        # Letters of the prefix that ends at a place; the last place is the separator.
        letters = np.arange(self.sequence)[None, :] - (self.sequence - 1) + n2[:, None] + 1
        asked = np.minimum(letters, n2[:, None])
        targets: Array = np.take_along_axis(numbers, asked.clip(0), axis=1)
        return np.where(letters >= 1, targets, IGNORED)

    def tally(self, outputs: Array, targets: Array) -> Tally:
        """Count right numbers of logits (..., classes), and add up how far off they are."""
        answers, wanted = outputs.argmax(axis=-1), targets
        tally: Tally = {}
        if self.prefixes:
            parts = class_tally(outputs, targets)
            tally = {"parts_right": parts["right"], "parts": parts["asked"]}
            answers, wanted = answers[:, -1], targets[:, -1]
        error = np.abs(answers - wanted)
        return tally | {
            "right": int((error == 0).sum()),
            "asked": len(wanted),
            "error": int(error.sum()),
        }

    def metrics(self, tally: Tally) -> Metrics:
        """Return ``accuracy``, ``mean_abs_error`` and, where they are asked, that of prefixes."""
        asked = tally["asked"]
        metrics = {"accuracy": tally["right"] / asked, "mean_abs_error": tally["error"] / asked}
        if self.prefixes:
            metrics["prefix_accuracy"] = tally["parts_right"] / tally["parts"]
        return metrics

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score the most frequent number of as many training pairs."""
        answers = self.batch("train", samples, 0).targets.reshape(samples, -1)[:, -1]
        seen = np.bincount(answers, minlength=self.classes)
        targets = np.concatenate([b.targets for b in self.evaluation(split, samples, samples)])
        logits = np.broadcast_to(seen, (*targets.shape, self.classes))
        return {"most_frequent": self.score(logits, targets)}
