"""By how much a metric moves, and how much of that is chance of the samples."""

from collections.abc import Callable, Sequence

import numpy as np

from loopedge.tasks.metrics import Tally

__all__ = ["BLOCKS", "NEGLIGIBLE", "certain", "loss_error", "moved"]

BLOCKS = 32
"""Most blocks of neighbouring samples that are left out in turn."""
FEW_BLOCKS = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Of Student's distribution for 1 to 10 degrees of freedom, what one value in forty lies above."""
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


def certain(batches: int) -> float:
    """Return the standard errors from which on a loss is not chance: one in forty would be, were there none.

    Args:
        batches: That `loss_error` was computed of, 2 or more: an error of few blocks is itself uncertain.
    """
    freedom = min(BLOCKS, batches) - 1
    return FEW_BLOCKS[freedom - 1] if freedom <= len(FEW_BLOCKS) else 1.96 + 2.7 / freedom


def moved(loss: float, error: float | None, float_score: float, *, batches: int = BLOCKS) -> bool:
    """Tell whether a metric got worse by more than its noise.

    Args:
        loss: By how much it is worse.
        error: The standard error of that; None: not known.
        float_score: Of the float model.
        batches: That the error was computed of.
    """
    noise = 0.0 if error is None else certain(batches) * error
    return loss > noise and loss > NEGLIGIBLE * abs(float_score)
