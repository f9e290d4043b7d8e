"""A task of one's own: one class with two methods.

Train on it and export what was learned:

    loopedge train task examples.own_task:RunningParity --loops 8 -o parity.pt
    loopedge export parity.pt -o parity.onnx
"""

from typing import Any

import loopedge
from loopedge.tasks.task import Batch, Split, generator_of


class RunningParity(loopedge.Task):
    """Say at each position whether the bits so far hold an odd number of ones.

    Args:
        length: Bits of a sample.
        seed: Of the batches; `loopedge train --seed` sets it.
    """

    name = "running-parity"
    # Attributes that are also the constructor's arguments: the checkpoint remembers them.
    settings = ("length",)

    def __init__(self, length: int = 16, seed: int = 0) -> None:
        self.length, self.seed = length, seed

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` samples: the same ones whenever split, step and seed are the same."""
        bits = generator_of(self.seed, split, step).integers(0, 2, size=(size, self.length))
        return Batch(inputs=bits, targets=bits.cumsum(axis=1) % 2)  # both int64 (size, length)

    def model_fields(self) -> dict[str, Any]:
        """Say what the task needs of the model; width, loops and the rest are options."""
        return {
            "vocab_size": 2,
            "outputs": 2,  # classes
            "causal": True,  # a position sees those before it
            "read": "all",  # and answers itself
            "max_length": self.length,
        }
