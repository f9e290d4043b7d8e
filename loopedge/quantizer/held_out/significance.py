"""By how much a metric moves, and how much of that is chance of the samples."""

from collections.abc import Callable, Sequence

import numpy as np

from loopedge.tasks.metrics import Tally

__all__ = ["BLOCKS", "CERTAIN", "NEGLIGIBLE", "loss_error", "moved"]

BLOCKS = 32
"""Most blocks of neighbouring samples that are left out in turn."""
CERTAIN = 2.0
"""Standard errors from which on a loss is not chance: one in forty would be, were there none."""
NEGLIGIBLE = 0.005
"""Share of the float model's score up to which a loss is not worth a warning."""


def loss_error(
    exact: Sequence[Tally],
    given: Sequence[Tally],
    loss: Callable[[list[Tally], list[Tally]], float],
) -> float | None:
    """Return the standard error of the loss of one model against another on the same samples.

    A jackknife over blocks: the loss is computed again without each of B blocks of neighbouring samples, and
    the error is sqrt((B - 1) / B * sum((loss_b - mean)^2)). Both models answer the same samples, so what is
    hard for both does not count; neighbouring windows of a series overlap, so they go together.

    Args:
        exact: What each batch adds to the float model's score, in the order of the data.
        given: What it adds to the other's.
        loss: Returns the loss of some batches.

    Returns:
        The error in units of the metric; None of fewer than two batches.
    """
    count = min(BLOCKS, len(exact))
    if count < 2:
        return None
    blocks = np.array_split(np.arange(len(exact)), count)
    losses = []
    for block in blocks:
        kept = [at for at in range(len(exact)) if not block[0] <= at <= block[-1]]
        losses.append(loss([exact[at] for at in kept], [given[at] for at in kept]))
    spread = np.array(losses)
    if not np.isfinite(spread).all():
        return None
    return float(np.sqrt((count - 1) / count * np.square(spread - spread.mean()).sum()))


def moved(loss: float, error: float | None, float_score: float) -> bool:
    """Tell whether a metric got worse by more than its noise.

    Args:
        loss: By how much it is worse.
        error: The standard error of that; None: not known.
        float_score: Of the float model.
    """
    return loss > CERTAIN * (error or 0.0) and loss > NEGLIGIBLE * abs(float_score)
