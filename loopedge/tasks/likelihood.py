"""How likely a model found what came: the sums behind perplexity, and counted baselines."""

import math

import numpy as np

from loopedge.tasks.metrics import IGNORED
from loopedge.tasks.task import Array

__all__ = [
    "bigram_logits",
    "bits_per_byte",
    "negative_log_likelihood",
    "perplexity",
    "rows_at_once",
    "unigram_logits",
]

PIECE = 1 << 20
"""Logits that are worked on at once: what is copied stays small, however long a batch is."""

MOST_LOGITS = 1 << 25
"""Logits of a batch that is evaluated: 128 MiB, whatever the vocabulary."""


def rows_at_once(size: int, positions: int, classes: int) -> int:
    """Return how many of ``size`` rows are evaluated together, at least one."""
    return max(1, min(size, MOST_LOGITS // (positions * classes)))


def negative_log_likelihood(outputs: Array, targets: Array) -> float:
    """Return the sum of -log p(target) in nats over the positions that are asked.

    The largest logit is taken off first, and the sums are float64. Logits are read piece by piece,
    so that no second array of their size is made.

    Args:
        outputs: Logits (batch, sequence, classes).
        targets: Classes (batch, sequence); `IGNORED` positions are left out.
    """
    total = 0.0
    step = max(1, PIECE // outputs.shape[-1])
    for row, wanted in zip(outputs, targets, strict=True):
        for start in range(0, len(wanted), step):
            asked = wanted[start : start + step]
            logits = row[start : start + step]
            kept = asked != IGNORED
            if not kept.all():
                logits, asked = logits[kept], asked[kept]
            if not len(asked):
                continue
            top = logits.max(axis=-1)
            given = logits[np.arange(len(asked)), asked].astype(np.float64)
            with np.errstate(invalid="ignore"):  # of a diverged model: the sum is NaN
                sums = np.exp(logits - top[:, None]).sum(axis=-1, dtype=np.float64)
                total += float((np.log(sums) + top - given).sum())
    return total


def perplexity(nats: float, asked: int) -> float:
    """Return exp of the mean over ``asked`` positions; infinity where it is past all numbers."""
    try:
        return math.exp(nats / max(1, asked))
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, text_bytes: float) -> float:
    """Return the bits that a byte of the text costs: it does not depend on the tokenizer."""
    return nats / math.log(2) / max(1.0, text_bytes)


def unigram_logits(ids: Array, vocab_size: int) -> Array:
    """Return log p(token), float32 (vocabulary,), counted with add-one smoothing."""
    counts = np.bincount(ids, minlength=vocab_size) + 1.0
    logits: Array = np.log(counts / counts.sum()).astype(np.float32)
    return logits


def bigram_logits(before: Array, after: Array, vocab_size: int) -> Array:
    """Return log p(next token | token), float32 (vocabulary, vocabulary), with add-one smoothing.

    Args:
        before: Tokens (pairs,).
        after: What follows each of them.
        vocab_size: Kinds of tokens.
    """
    places = before.astype(np.int64) * vocab_size + after
    counts = np.bincount(places, minlength=vocab_size**2).reshape(vocab_size, vocab_size) + 1.0
    logits: Array = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return logits
