"""The edit-distance task of the paper, generated: two strings in, their distance out as a class.

After the generator of Feng et al. (2023, arXiv 2305.15408) that Xu & Sato (2025) use: the letters of
a pair come from a random sub-alphabet of 3 to 10; 40 % of the pairs are independent, in the others
the second string is the first after up to ``length`` random edits; pairs that are equal or whose
second length is outside length - 3 .. length + 2 are drawn again; the shorter string comes first.
"""

from typing import Any

import numpy as np

from loopedge.errors import InputError
from loopedge.tasks.generated.string_pairs import StringPairTask
from loopedge.tasks.task import Array, Batch, Split, generator_of

__all__ = ["DELETE", "INSERT", "SUBSTITUTE", "EditDistanceTask", "draw_pairs", "edit_distances"]

INSERT = DELETE = 2
SUBSTITUTE = 3
PAD, BAR, SEPARATOR, FIRST_LETTER = 0, 1, 2, 3
LETTERS = 26
FEWEST, MOST = 3, 10
"""Letters that the strings of a pair use."""
INDEPENDENT = 0.4
SHORTER, LONGER = 3, 2
"""How much shorter or longer than ``length`` the second string may be."""


class EditDistanceTask(StringPairTask):
    """Tell the edit distance of two strings.

    A sample is ``first | second <sep>``, padded on the left; its class is the distance with
    insertion and deletion at 2 and substitution at 3, read at the last position.

    Args:
        length: Letters of the first string as drawn, 4 to 1000.
        letters: Of the alphabet, 3 to 26; a pair draws 3 to 10 of them.
        prefixes: Ask at each letter of the second string for the distance of what stands before it,
            too: more to learn from in a sample. `metric` judges the whole strings all the same.
        seed: Of the batches.

    Raises:
        InputError: ``length`` or ``letters`` is out of range.
    """

    name = "edit-distance"
    settings = ("length", "letters", "prefixes")

    def __init__(
        self, *, length: int, letters: int = LETTERS, prefixes: bool = False, seed: int = 0
    ) -> None:
        if not 4 <= length <= 1000:
            raise InputError(f"edit-distance: length is {length}, allowed 4 to 1000")
        if not FEWEST <= letters <= LETTERS:
            raise InputError(f"edit-distance: letters is {letters}, allowed {FEWEST} to {LETTERS}")
        self.length, self.letters, self.prefixes = length, letters, prefixes
        self.seed = seed
        self.sequence = 2 * length + LONGER + 2
        self.classes = SUBSTITUTE * length + INSERT * LONGER + 1

    def batch(self, split: Split, size: int, step: int) -> Batch:
        """Draw ``size`` pairs."""
        generator = generator_of(self.seed, split, step)
        first, second = (np.zeros((size, self.length + LONGER), np.int64) for _ in range(2))
        n1, n2 = (np.zeros(size, np.int64) for _ in range(2))
        filled = 0
        while filled < size:
            drawn = draw_pairs(generator, 2 * size, self.length, self.letters)
            taken = min(size - filled, len(drawn[0]))
            rows = slice(filled, filled + taken)
            for kept, new in zip((first, second, n1, n2), drawn, strict=True):
                kept[rows] = new[:taken]
            filled += taken
        inputs = self._lay_out(first, second, n1, n2)
        return Batch(
            inputs=inputs,
            attention_mask=(inputs != PAD).astype(np.int64),
            targets=self.answers(edit_distances(first, second, n1), n2),
        )

    def _lay_out(self, first: Array, second: Array, n1: Array, n2: Array) -> Array:
        """Write ``first | second <sep>`` against the right end of (batch, sequence)."""
        bar, end = n1[:, None], (n1 + n2 + 1)[:, None]
        # Position counted from the first letter; negative in the padding.
        place = np.arange(self.sequence)[None, :] - (self.sequence - 1 - end)
        last = first.shape[1] - 1
        from_first = np.take_along_axis(first, place.clip(0, last), axis=1)
        from_second = np.take_along_axis(second, (place - bar - 1).clip(0, last), axis=1)
        inputs: Array = np.select(
            [place < 0, place < bar, place == bar, place == end],
            [np.int64(PAD), from_first + FIRST_LETTER, np.int64(BAR), np.int64(SEPARATOR)],
            from_second + FIRST_LETTER,
        )
        return inputs

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of a causal model that reads the last position."""
        return {
            "vocab_size": FIRST_LETTER + self.letters,
            "outputs": self.classes,
            "read": "all" if self.prefixes else "last",
            "padding": True,
            "causal": True,
            "max_length": self.sequence,
        }


def draw_pairs(
    generator: np.random.Generator, count: int, length: int, alphabet_size: int = LETTERS
) -> tuple[Array, Array, Array, Array]:
    """Draw pairs and keep the valid ones.

    Returns:
        Letters int64 (kept, length + 2) of the shorter and of the longer string, 0 past their ends,
        and their lengths, each (kept,).
    """
    width = 2 * length + 1  # `length` insertions, and one place that a deletion may read
    used = generator.integers(FEWEST, min(MOST, alphabet_size) + 1, size=count)
    alphabet = generator.permuted(np.tile(np.arange(alphabet_size), (count, 1)), axis=1)
    letters = np.take_along_axis(
        alphabet, generator.integers(0, used[:, None], size=(count, 2 * width)), axis=1
    )
    first, second = letters[:, :width], letters[:, :width].copy()
    independent = generator.random(count) < INDEPENDENT
    second[independent] = letters[independent, width:]
    lengths = np.where(
        independent, generator.integers(length - SHORTER, length + LONGER + 1, size=count), length
    )
    edits = np.where(independent, 0, generator.integers(1, length + 1, size=count))
    for turn in range(length):
        second, lengths = mutate(
            second,
            lengths,
            kind=np.where(turn < edits, generator.integers(0, 3, size=count), -1),
            place=generator.random(count),
            letter=np.take_along_axis(alphabet, generator.integers(0, used)[:, None], axis=1),
        )
    inside = np.arange(length + LONGER)
    first = np.where(inside < length, first[:, : length + LONGER], 0)
    second = np.where(inside < lengths[:, None], second[:, : length + LONGER], 0)
    equal = (lengths == length) & (first == second).all(axis=1)
    kept = ~equal & (lengths >= length - SHORTER) & (lengths <= length + LONGER)
    first, second, lengths = first[kept], second[kept], lengths[kept]
    swapped = (lengths < length)[:, None]
    return (
        np.where(swapped, second, first),
        np.where(swapped, first, second),
        np.minimum(lengths, length),
        np.maximum(lengths, length),
    )


def mutate(
    strings: Array, lengths: Array, *, kind: Array, place: Array, letter: Array
) -> tuple[Array, Array]:
    """Apply one edit to each string.

    Args:
        strings: int64 (count, width).
        lengths: (count,), below width.
        kind: (count,): 0 deletes, 1 substitutes, 2 inserts, -1 does nothing.
        place: (count,) in [0, 1): where, as a share of the places there are.
        letter: (count, 1): what is put in.

    Returns:
        New strings and lengths.
    """
    # Two letters are not shortened further: the published generator inserts instead.
    kind = np.where((kind == 0) & (lengths <= 2), 2, kind)
    at = (place * (lengths + (kind == 2))).astype(np.int64)[:, None]
    index = np.arange(strings.shape[1])[None, :]
    source = index + ((kind == 0)[:, None] & (index >= at)) - ((kind == 2)[:, None] & (index > at))
    moved = np.take_along_axis(strings, source.clip(0, strings.shape[1] - 1), axis=1)
    put = (kind >= 1)[:, None] & (index == at)
    return np.where(put, letter, moved), lengths + (kind == 2) - (kind == 0)


def edit_distances(first: Array, second: Array, n1: Array) -> Array:
    """Return the edit distances between strings and all prefixes of others, many pairs at once.

    One row of the table of every pair per step; within a row the insertions, each reading its left
    neighbour, are a running minimum: min over k <= j of (entry k + 2 (j - k)).

    Args:
        first: int (batch, width), letters; anything past the ends.
        second: int (batch, width).
        n1: Lengths of the first strings, (batch,).

    Returns:
        int64 (batch, width + 1): at j the distance to the first j letters of the second string.
    """
    pairs, width = second.shape
    slope = INSERT * np.arange(width + 1)  # (width + 1,)
    row = np.broadcast_to(slope, (pairs, width + 1))
    distances: Array = row.astype(np.int64)
    for i in range(first.shape[1]):
        cost = np.where(second == first[:, i, None], 0, SUBSTITUTE)
        entry = row + DELETE
        entry[:, 1:] = np.minimum(entry[:, 1:], row[:, :-1] + cost)
        row = np.minimum.accumulate(entry - slope, axis=1) + slope
        distances = np.where((n1 == i + 1)[:, None], row, distances)
    return distances
