"""The sorting task, generated: n tokens, a separator, n places to fill with the tokens in order."""

from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.metrics import IGNORED, Metrics
from loopedge.tasks.task import Batch, Split, Task, generator_of

__all__ = ["SortingTask"]


class SortingTask(Task):
    """Sort ``length`` tokens in ascending order.

    A sample is ``x1 .. xn <separator> <blank> * n``; token ids 0 .. vocab - 1 sort, vocab is the
    separator, vocab + 1 the blank. The model reads in both directions and answers at the blanks.

    Args:
        length: Tokens to sort, 2 to 4096.
        vocab: Distinct tokens, 2 to 65536.
        seed: Of the batches.

    Raises:
        InputError: ``length`` or ``vocab`` is out of range.
    """

    name = "sorting"
    settings = ("length", "vocab")

    def __init__(self, *, length: int, vocab: int, seed: int = 0) -> None:
        if not 2 <= length <= 4096:
            raise InputError(f"sorting: length is {length}, allowed 2 to 4096")
        if not 2 <= vocab <= 65536:
            raise InputError(f"sorting: vocab is {vocab}, allowed 2 to 65536")
        self.length = length
        self.vocab = vocab
        self.seed = seed

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` sequences."""
        tokens = generator_of(self.seed, split, step).integers(
            0, self.vocab, size=(size, self.length)
        )
        inputs = np.full((size, 2 * self.length + 1), self.vocab + 1, np.int64)
        inputs[:, : self.length] = tokens
        inputs[:, self.length] = self.vocab
        targets = np.full_like(inputs, IGNORED)
        targets[:, self.length + 1 :] = np.sort(tokens, axis=1)
        return Batch(inputs=inputs, targets=targets)

    def baselines(self, split: Split, samples: int) -> dict[str, Metrics]:
        """Score answering each place with the token expected there, whatever the input."""
        targets = np.concatenate([b.targets for b in self.evaluation(split, samples, samples)])
        shares = (np.arange(self.length) + 0.5) / self.length
        expected = (shares * self.vocab).astype(np.int64)
        right = targets[:, self.length + 1 :] == expected
        return {
            "expected_order": {
                "accuracy": float(right.mean()),
                "sequence_accuracy": float(right.all(axis=-1).mean()),
            }
        }

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a model that reads in both directions and answers everywhere."""
        return {
            "vocab_size": self.vocab + 2,
            "causal": False,
            "read": "all",
            "max_length": 2 * self.length + 1,
        }
