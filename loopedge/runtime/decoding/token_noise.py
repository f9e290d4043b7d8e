"""Noise that a model takes beside each token: the same for a token, however its text comes in chunks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NoiseInput", "TokenNoise"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseInput:
    """An input of noise, (batch, sequence, *features), and its standard deviation."""

    name: str
    deviation: float
    features: tuple[int, ...]
    dtype: np.dtype[Any]


class TokenNoise:
    """The noise of some texts. Each gets what it would get alone.

    That of a model of one such input is what `loopedge.Session` draws for a text with the same seed.

    Args:
        inputs: Of the model.
        batch: Texts.
        seed: Of the noise.
    """

    def __init__(self, inputs: Sequence[NoiseInput], *, batch: int, seed: int) -> None:
        self.inputs = tuple(inputs)
        self._seed = seed
        self._drawn = [0] * batch
        self._random = [self._begin() for _ in range(batch)]

    def draw(self, done: Sequence[int], new: Sequence[int]) -> Mapping[str, Array]:
        """Return the noise of the next tokens, by input, padded on the right with zeros.

        Args:
            done: Tokens that each text had before.
            new: Tokens that come to each.
        """
        width, batch = max(new), len(new)
        found = {
            each.name: np.zeros((batch, width, *each.features), each.dtype) for each in self.inputs
        }
        for row in range(batch) if self.inputs else ():
            if self._drawn[row] != done[row]:  # it was forgotten, or a call failed
                self._random[row] = self._begin()
                self._next(row, done[row])
            for name, values in self._next(row, new[row]).items():
                found[name][row, : new[row]] = values
            self._drawn[row] = done[row] + new[row]
        return found

    def _begin(self) -> list[np.random.Generator]:
        """Return a source for each input; the first one is that of the seed itself."""
        return [
            np.random.default_rng(self._seed if place == 0 else [self._seed, place])
            for place in range(len(self.inputs))
        ]

    def _next(self, row: int, tokens: int) -> dict[str, Array]:
        return {
            each.name: random.standard_normal((tokens, *each.features)) * each.deviation
            for each, random in zip(self.inputs, self._random[row], strict=True)
        }
