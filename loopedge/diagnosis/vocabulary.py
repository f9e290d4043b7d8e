"""Tokens of texts and pairs: how many of them are used, and which of the test split training never saw."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.tasks.metrics import IGNORED
from loopedge.tasks.task import Array, Split, Task

__all__ = ["Vocabulary", "advise_vocabulary", "measure_vocabulary"]

UNSEEN = 0.001
"""Share of the test tokens from which on it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Tokens that are asked for, in samples of training and test.

    Args:
        size: Of the tokenizer, with what marks parts.
        used: Different ones in the training samples.
        entropy: Bits of a training token, by how often each occurs: what a model must say better than.
        unseen: Share of the test tokens that are in no training sample.
        tokens: Training tokens that were counted.
    """

    size: int
    used: int
    entropy: float
    unseen: float
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_vocabulary(task: Task, samples: int) -> Vocabulary | None:
    """Count tokens of samples; None where a task has no vocabulary."""
    size = task.model_fields().get("vocab_size")
    if size is None:
        return None
    train, test = (_counts(task, split, samples, int(size)) for split in ("train", "test"))
    shares = train[train > 0] / max(1, train.sum())
    return Vocabulary(
        size=int(size),
        used=int((train > 0).sum()),
        entropy=float(-(shares * np.log2(shares)).sum()),
        unseen=float(test[train == 0].sum() / max(1, test.sum())),
        tokens=int(train.sum()),
    )


def _counts(task: Task, split: Split, samples: int, size: int) -> Array:
    """Return how often each token is asked for: int64 (vocabulary,)."""
    counts = np.zeros(size, np.int64)
    for batch in task.evaluation(split, 256, samples):
        asked = batch.targets[batch.targets != IGNORED].ravel()
        counts += np.bincount(asked.astype(np.int64), minlength=size)[:size]
    return counts


def advise_vocabulary(found: Vocabulary) -> list[Advice]:
    """Say where the test split has tokens that training lacks."""
    if found.unseen < UNSEEN:
        return []
    message = f"{found.unseen:.2%} of the test tokens are in no training sample that was looked at: a model cannot know them"
    return [Advice(kind="vocabulary", message=message, weight=0.6)]
