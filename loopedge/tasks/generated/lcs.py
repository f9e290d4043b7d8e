"""The longest common subsequence of two strings, generated: its length as a class.

One of the tasks of Xu & Sato (2025, arXiv 2410.01405).
"""

from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.generated.string_pairs import StringPairTask
from loopedge.tasks.task import Array, Batch, Split, generator_of

__all__ = ["LcsTask", "lcs_lengths"]

BAR, SEPARATOR, FIRST_LETTER = 0, 1, 2


class LcsTask(StringPairTask):
    """Tell the length of the longest common subsequence of two strings.

    A sample is ``first | second <sep>``; both strings have ``length`` letters, each drawn
    uniformly. The class is the length of the subsequence, read at the last position.

    Args:
        length: Letters of each string, 2 to 1000.
        letters: Size of the alphabet, 2 to 1000.
        prefixes: Ask at each letter of the second string for the length so far, too: more to learn
            from in a sample. `metric` judges the whole strings all the same.
        seed: Of the batches.

    Raises:
        InputError: ``length`` or ``letters`` is out of range.
    """

    name = "lcs"
    settings = ("length", "letters", "prefixes")

    def __init__(
        self, *, length: int, letters: int = 4, prefixes: bool = False, seed: int = 0
    ) -> None:
        if not 2 <= length <= 1000:
            raise InputError(f"lcs: length is {length}, allowed 2 to 1000")
        if not 2 <= letters <= 1000:
            raise InputError(f"lcs: letters is {letters}, allowed 2 to 1000")
        self.length, self.letters, self.prefixes = length, letters, prefixes
        self.seed = seed
        self.sequence = 2 * length + 2
        self.classes = length + 1

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` pairs."""
        generator = generator_of(self.seed, split, step)
        first, second = generator.integers(0, self.letters, size=(2, size, self.length))
        inputs = np.full((size, self.sequence), BAR, np.int64)
        inputs[:, : self.length] = first + FIRST_LETTER
        inputs[:, self.length + 1 : -1] = second + FIRST_LETTER
        inputs[:, -1] = SEPARATOR
        whole = np.full(size, self.length)
        return Batch(inputs=inputs, targets=self.answers(lcs_lengths(first, second), whole))

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that reads the last position."""
        return {
            "vocab_size": FIRST_LETTER + self.letters,
            "outputs": self.classes,
            "read": "all" if self.prefixes else "last",
            "causal": True,
            "max_length": self.sequence,
        }


def lcs_lengths(first: Array, second: Array) -> Array:
    """Return the longest common subsequences of strings and all prefixes of others, many at once.

    One row of the table of every pair per step. An entry is the largest of its upper neighbour, its
    left neighbour, and, where the letters agree, the entry before both plus one; the left
    neighbours are a running maximum.

    Args:
        first: int (batch, length1), letters.
        second: int (batch, length2), letters.

    Returns:
        int64 (batch, length2 + 1): at j the length for the first j letters of the second string.
    """
    pairs, width = second.shape
    row = np.zeros((pairs, width + 1), np.int64)
    for i in range(first.shape[1]):
        same = second == first[:, i, None]
        entry = np.maximum(row[:, 1:], row[:, :-1] + same)
        row[:, 1:] = np.maximum.accumulate(entry, axis=1)
    return row
