"""Texts without a network: n-grams, their order chosen on the validation part."""

from collections.abc import Callable

import numpy as np

from loopedge.baselines.attempts import JUDGED, Best, Judged, attempt, judged_by_tallies
from loopedge.baselines.ngrams import NGrams
from loopedge.baselines.scores import BaselineScores
from loopedge.tasks.metrics import IGNORED, Tally
from loopedge.tasks.sample_tallies import joined
from loopedge.tasks.task import Array, Batch, Split
from loopedge.tasks.text import TextTask

__all__ = ["likelihood_tallies", "orders_tried", "text_baselines"]

MOST_COUNTED = 1 << 20
"""Tokens of the training part that are counted, in evenly spaced runs."""
ROWS = 64
"""Windows that are scored at once."""
FEW_TOKENS, MANY_TOKENS = 7, 4
"""The highest order that is tried of a vocabulary up to `SMALL`, and of a larger one."""
SMALL = 1024


def text_baselines(task: TextTask, samples: int) -> list[BaselineScores]:
    """Score how often tokens come, and n-grams.

    Args:
        task: A text.
        samples: Most windows of a split.
    """
    counted: list[NGrams] = []

    def ngrams() -> NGrams:
        if not counted:
            texts = task.parts["train"].sample(MOST_COUNTED)
            size = task.tokenizer.vocab_size
            counted.append(NGrams(texts, size, orders_tried(size)))
        return counted[0]

    return [
        attempt(task, "token frequency", lambda: _judge(task, samples, ngrams(), 1, "")),
        attempt(task, "n-grams", lambda: _best_order(task, samples, ngrams())),
    ]


def orders_tried(vocab_size: int) -> int:
    """Return the highest order that is tried."""
    return FEW_TOKENS if vocab_size <= SMALL else MANY_TOKENS


def likelihood_tallies(nats: Array, right: Array, targets: Array) -> Tally:
    """Return what each row adds, by the names of `class_tally` and ``nats``, each (rows,).

    Args:
        nats: float64 (rows, positions): -log p of each target.
        right: bool (rows, positions): whether the likeliest token was the target.
        targets: int64 (rows, positions), `IGNORED` where nothing is asked.
    """
    asked = targets != IGNORED
    return {
        "right": (right & asked).sum(axis=1).astype(np.float64),
        "asked": asked.sum(axis=1).astype(np.float64),
        "rows_right": ((right | ~asked).all(axis=1) & asked.any(axis=1)).astype(np.float64),
        "rows": asked.any(axis=1).astype(np.float64),
        "nats": np.where(asked, nats, 0.0).sum(axis=1),
    }


def _best_order(task: TextTask, samples: int, ngrams: NGrams) -> Judged:
    nats = np.zeros(ngrams.order)
    for batch in task.evaluation("validation", ROWS, samples):
        starts = np.zeros(len(batch.inputs), np.int64)
        found = ngrams.probabilities(batch.inputs, batch.targets, starts)
        nats -= np.log(found).sum(axis=(1, 2))
    best: Best[int] = Best()
    for place, loss in enumerate(nats.tolist()):
        best.offer(loss, place + 1)
    order = best.candidate
    about = f"order {order}, interpolated Kneser-Ney"
    return _judge(task, samples, ngrams, order, about)


def _judge(task: TextTask, samples: int, ngrams: NGrams, order: int, about: str) -> Judged:
    def tallies(batch: Batch) -> Tally:
        starts = np.zeros(len(batch.inputs), np.int64)
        found = ngrams.probabilities(batch.inputs, batch.targets, starts)[order - 1]
        right = ngrams.likeliest(batch.inputs, starts, order) == batch.targets
        spelled = task.token_bytes[batch.targets].sum(axis=1)
        return likelihood_tallies(-np.log(found), right, batch.targets) | {"bytes": spelled}

    return judged_by_tallies(task, about, _of_splits(task, samples, tallies))


def _of_splits(
    task: TextTask, samples: int, tallies: Callable[[Batch], Tally]
) -> dict[Split, Tally]:
    return {
        split: joined(tallies(batch) for batch in task.evaluation(split, ROWS, samples))
        for split in JUDGED
    }
