"""Noise that a model takes with each token of a text: the same for a token, however the text is cut into chunks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TokenNoise"]

Array = npt.NDArray[Any]


class TokenNoise:
    """Draws the noise of texts side by side, one token after the other.

    For one text, and a model with one such input, it is what `Session.run` draws of the same seed for the whole.

    Args:
        widths: By input, the sizes behind (batch, sequence).
        deviations: By input, its standard deviation.
        batch: Texts side by side.
        seed: Of the draws.
    """

    def __init__(
        self,
        widths: Mapping[str, tuple[int, ...]],
        deviations: Mapping[str, float],
        *,
        batch: int,
        seed: int,
    ) -> None:
        self.widths, self.deviations = widths, deviations
        self.batch, self.seed = batch, seed
        self.reset()

    def reset(self) -> None:
        """Begin the texts again."""
        self._generators = [
            {
                name: np.random.default_rng([self.seed, place, row] if place or row else self.seed)
                for place, name in enumerate(self.widths)
            }
            for row in range(self.batch)
        ]

    def draw(self, added: Sequence[int]) -> dict[str, Array]:
        """Return the noise of the tokens that each text is given, float32 (batch, most of them, ...); zeros behind them."""
        longest = max(added)
        found = {}
        for name, width in self.widths.items():
            noise = np.zeros((self.batch, longest, *width), np.float32)
            for row, count in enumerate(added):
                drawn = self._generators[row][name].standard_normal((count, *width))
                noise[row, :count] = drawn * self.deviations[name]
            found[name] = noise
        return found
