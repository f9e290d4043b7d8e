"""Whether a run still trains, as its losses say: a state that is worth going back to, or a lost one."""

import math
from dataclasses import dataclass

__all__ = ["Trend"]

MEMORY = 0.98
"""Share of the old mean in the next one: it follows about the last fifty steps."""

LEAST_RISE = math.log(4)
"""How far above the mean the loss of a batch may always stand, on a logarithmic scale."""

DEVIATIONS = 4.0
"""How many mean deviations above it the loss may stand: batches of one sample are noisy."""


@dataclass(slots=True, kw_only=True)
class Trend:
    """The losses of a run, as far as they tell a rise without bound from the noise of batches.

    A run that diverges stays finite for some steps while its weights are lost already. Its state is taken for
    lost as soon as the loss stands far above what it was lately: four times, or four mean deviations where
    batches are noisy. A run whose loss stays high is not taken for lost for ever, as the mean follows it.

    Args:
        mean: Of the logarithms of the last losses; NaN before the first.
        deviation: Mean distance of the logarithms from that.
    """

    mean: float = math.nan
    deviation: float = 0.0

    def is_lost(self, loss: float) -> bool:
        """Return whether weights of this loss are lost."""
        if not math.isfinite(loss):
            return True
        if loss <= 0 or math.isnan(self.mean):  # no targets, or no loss to compare with
            return False
        allowed = max(LEAST_RISE, DEVIATIONS * self.deviation)
        return math.log(loss) > self.mean + allowed

    def add(self, loss: float) -> None:
        """Take the loss of a step; one of zero, as of a batch without targets, says nothing."""
        if loss <= 0:
            return
        value = math.log(loss)
        if math.isnan(self.mean):
            self.mean = value
        self.deviation = MEMORY * self.deviation + (1 - MEMORY) * abs(value - self.mean)
        self.mean = MEMORY * self.mean + (1 - MEMORY) * value
