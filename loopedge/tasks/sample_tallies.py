"""What each sample of an evaluation adds to the score: from it the metric of any part, or of any resampling, follows."""

from collections.abc import Iterable

import numpy as np

from loopedge.tasks.metrics import Tally
from loopedge.tasks.task import Array, Batch, Task

__all__ = ["joined", "sample_tallies", "weighted_total"]


def sample_tallies(task: Task, outputs: Array, batch: Batch) -> Tally:
    """Return what each sample of a batch adds to the score.

    Args:
        task: Scores.
        outputs: Of a model or a baseline, (batch, ...).
        batch: The samples.

    Returns:
        The arrays of `Task.tally_batch` by name, float64 (batch, ...).
    """
    rows = [
        task.tally_batch(outputs[row : row + 1], batch.rows(slice(row, row + 1)))
        for row in range(len(outputs))
    ]
    names = rows[0] if rows else {}
    return {name: np.stack([np.asarray(row[name], np.float64) for row in rows]) for name in names}


def joined(parts: Iterable[Tally]) -> Tally:
    """Return the tallies of several batches as those of one, in their order."""
    whole = [part for part in parts if part]
    names = whole[0] if whole else {}
    return {name: np.concatenate([part[name] for part in whole]) for name in names}


def weighted_total(tallies: Tally, weights: Array | None = None) -> Tally:
    """Return the sum over samples, as `Task.metrics` takes it.

    Args:
        tallies: Of `sample_tallies`.
        weights: (samples,): how often each sample counts, as a bootstrap draws it; default: once.
    """
    if weights is None:
        return {name: values.sum(axis=0) for name, values in tallies.items()}
    return {name: np.tensordot(weights, values, axes=1) for name, values in tallies.items()}
