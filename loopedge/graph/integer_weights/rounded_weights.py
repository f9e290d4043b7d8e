"""Weights whose integers were chosen before the graph is rewritten: on data, or by training."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loopedge.graph.integer_weights.blocks import Blocks

__all__ = ["Channels", "RoundedWeight", "RoundedWeights"]


@dataclass(frozen=True, slots=True)
class Channels:
    """A weight with one scale per output.

    ``values``: int8 (outputs, inputs); ``scales``: float32 (outputs,).
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def floats(self) -> npt.NDArray[np.float32]:
        """Return the weight that the stored one stands for, float32 (outputs, inputs)."""
        return self.values * self.scales[:, None]

    def of_shape(self, shape: tuple[int, ...]) -> "Channels":
        """Return it, where it is a weight of this shape, (outputs, inputs).

        Raises:
            ValueError: It is of another.
        """
        if self.values.shape != shape:
            raise ValueError(f"channels of {self.values.shape} for a weight {shape}")
        return self


RoundedWeight = Blocks | Channels
"""A row per output in both: the transpose of a weight [in, out], and a tied table as it stands."""

RoundedWeights = Mapping[str, RoundedWeight]
"""By the weight's name in the float graph. With smoothing they are the smoothed weights."""
