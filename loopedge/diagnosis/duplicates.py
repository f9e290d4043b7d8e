"""Samples of the test split that training holds too: to know them by heart scores well and says little."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopedge.diagnosis.advice import Advice
from loopedge.tasks.task import Split, Task

__all__ = ["Duplicates", "advise_duplicates", "measure_duplicates"]

MOST_TRAINED = 16_384
"""Training samples that are compared."""
SHARE = 0.01
"""Of the test samples from which on it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Test samples whose inputs stand in training, value for value.

    Args:
        test: Test samples that were looked up.
        train: Training samples among which they were looked up.
        repeated: Of the test samples: with the same inputs, and the same answer.
        contradicted: With the same inputs, and another answer.
    """

    test: int
    train: int
    repeated: int
    contradicted: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_duplicates(task: Task, samples: int) -> Duplicates:
    """Look the test samples up among the training samples.

    Args:
        task: The data.
        samples: Most test samples.
    """
    known: dict[bytes, set[bytes]] = {}
    train = 0
    for inputs, targets in _digests(task, "train", MOST_TRAINED):
        known.setdefault(inputs, set()).add(targets)
        train += 1
    test = repeated = contradicted = 0
    for inputs, targets in _digests(task, "test", samples):
        test += 1
        if inputs in known:
            repeated += targets in known[inputs]
            contradicted += targets not in known[inputs]
    return Duplicates(test=test, train=train, repeated=repeated, contradicted=contradicted)


def _digests(task: Task, split: Split, samples: int) -> Iterator[tuple[bytes, bytes]]:
    for batch in task.evaluation(split, 256, samples):
        inputs, targets = np.ascontiguousarray(batch.inputs), np.ascontiguousarray(batch.targets)
        for row in range(len(inputs)):
            yield tuple(  # type: ignore[misc]  # two of them
                hashlib.blake2b(part[row].tobytes(), digest_size=16).digest()
                for part in (inputs, targets)
            )


def advise_duplicates(found: Duplicates) -> list[Advice]:
    """Say where the test split repeats training."""
    both = found.repeated + found.contradicted
    if both <= SHARE * found.test:
        return []
    message = f"{both / found.test:.0%} of the test samples stand in training, value for value"
    if found.contradicted:
        message += f", {found.contradicted / found.test:.0%} with another answer"
    return [
        Advice(
            kind="duplicates", message=f"{message}: leave them out of one of the two", weight=0.9
        )
    ]
