"""Whether a run still trains, as its losses say: a state that is worth going back to, or a lost one."""

import math
from dataclasses import dataclass

__all__ = ["Trend"]

MEMORY = 0.9
"""Share of the old mean in the next one: it follows about the last ten steps."""

NOISE = 2.0
"""How far the loss of a batch may stand above the mean without saying anything."""


@dataclass(slots=True, kw_only=True)
class Trend:
    """The losses of a run, as far as they tell a rise that has no end from the noise of batches.

    A run that diverges stays finite for some steps while its weights are lost already. Its state is taken
    for lost as soon as the loss has given back half of what training had gained, on a logarithmic scale,
    and `NOISE` more. Where nothing was gained yet, that is `NOISE` times the loss of the first step.

    Args:
        first: Loss of the untrained model; NaN before the first step.
        mean: Of the last steps.
        lowest: The lowest mean so far.
    """

    first: float = math.nan
    mean: float = 0.0
    lowest: float = math.inf

    @property
    def bound(self) -> float:
        """The largest loss of a state that still trains; infinite before the first step."""
        if not self.first > 0:  # nothing can be said before the first step, nor of a loss of zero
            return math.inf
        return NOISE * math.sqrt(self.first * min(self.first, self.lowest))

    def is_lost(self, loss: float) -> bool:
        """Return whether weights of this loss are lost."""
        return not loss <= self.bound

    def add(self, loss: float) -> None:
        """Take the loss of a step."""
        if math.isnan(self.first):
            self.first = self.mean = loss
        self.mean = MEMORY * self.mean + (1 - MEMORY) * loss
        self.lowest = min(self.lowest, self.mean)
