"""Classification scored by a confusion matrix, which adds up over batches."""

import numpy as np

from loopedge.tasks.metrics import IGNORED, Metrics, Tally
from loopedge.tasks.task import Array

__all__ = ["confusion_metrics", "confusion_tally"]


def confusion_tally(outputs: Array, targets: Array) -> Tally:
    """Count answers by class and by what the model said.

    Args:
        outputs: Logits (batch, classes).
        targets: int64 (batch,); `IGNORED` rows are left out.
    """
    classes = outputs.shape[-1]
    kept = targets != IGNORED
    pairs = targets[kept] * classes + outputs.argmax(axis=-1)[kept]
    return {"confusion": np.bincount(pairs, minlength=classes**2).reshape(classes, classes)}


def confusion_metrics(tally: Tally) -> Metrics:
    """Return ``accuracy`` and ``macro_f1``.

    The macro-averaged F1 score is the mean over the classes that occur or were answered, as
    scikit-learn computes it.
    """
    confusion = tally["confusion"]
    right, asked, said = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    there = asked + said > 0
    f1 = 2 * right[there] / (asked + said)[there]
    return {
        "accuracy": float(right.sum() / max(1, confusion.sum())),
        "macro_f1": float(f1.mean()) if there.any() else 0.0,
    }
