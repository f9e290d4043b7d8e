"""Example inputs for the reference transformer: what is traced and what is verified with."""

import torch
from torch import Tensor

from loopedge.model.transformer import LoopedTransformer

__all__ = ["example_inputs"]

MISSING_SHARE = 0.25
"""Share of NaN in the inputs of a model that takes missing values."""


def example_inputs(
    model: LoopedTransformer, *, batch: int, sequence: int, padding: bool, seed: int = 0
) -> tuple[Tensor, ...]:
    """Make seeded inputs of the kinds that a model takes.

    Args:
        model: Says whether its inputs are token ids or continuous, and how they are scaled.
        batch: Rows.
        sequence: Positions.
        padding: Whether to add an attention mask, with rows padded left, right and not at all.
        seed: Of the generator.

    Returns:
        ``(input_ids or inputs,)`` or ``(..., attention_mask)``.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    if config.vocab_size is not None:
        first = torch.randint(config.vocab_size, (batch, sequence), generator=generator)
    else:
        noise = torch.randn(batch, sequence, config.features or 1, generator=generator)
        first = noise * model.get_buffer("input_scale") + model.get_buffer("input_mean")
        if config.missing:
            gone = torch.rand(first.shape, generator=generator) < MISSING_SHARE
            first = first.masked_fill(gone, torch.nan)
    if not padding:
        return (first,)
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    for row in range(batch):
        padded = min(1 + row, sequence - 1) if row % 3 else 0
        if row % 3 == 1:
            mask[row, :padded] = 0
        elif row % 3 == 2:
            mask[row, sequence - padded :] = 0
    return (first, mask)
