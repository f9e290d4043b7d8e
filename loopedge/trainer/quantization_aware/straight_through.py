"""Rounding whose gradient is that of the identity (straight-through, Bengio et al. 2013)."""

import torch
from torch import Tensor

__all__ = [
    "U8_STEPS",
    "round_dynamic",
    "round_in_blocks",
    "round_static",
    "straight_through",
    "whole",
]

U8_STEPS, S8_LIMIT = 255, 127
SMALLEST = torch.finfo(torch.float32).tiny


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``exact``, of the same shape."""
    return exact + (rounded - exact).detach()


def whole(levels: Tensor) -> Tensor:
    """Round to whole numbers, halves to even, with the gradient of the identity."""
    return straight_through(levels, levels.round())


def round_static(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round to u8 and back with a fixed range, as QuantizeLinear does; what lies outside has no gradient.

    Args:
        x: float32 of any shape.
        scale: float32 ().
        zero_point: float32 (), a whole number of 0 to 255.
    """
    low, high = -zero_point * scale, (U8_STEPS - zero_point) * scale
    inside = torch.maximum(torch.minimum(x, high), low)
    levels = (x / scale).round() + zero_point
    return straight_through(inside, (levels.clamp(0, U8_STEPS) - zero_point) * scale)


def round_in_blocks(x: Tensor, block_size: int) -> Tensor:
    """Round to s8 and back as the kernel of a product with weights in blocks does: each block of each row by its largest value."""
    detached = x.detach()
    filled = torch.nn.functional.pad(detached, (0, -x.shape[-1] % block_size))
    blocks = filled.reshape(*x.shape[:-1], -1, block_size)
    scale = (blocks.abs().amax(dim=-1, keepdim=True) / S8_LIMIT).clamp(min=SMALLEST)
    rounded = ((blocks / scale).round() * scale).reshape(filled.shape)[..., : x.shape[-1]]
    return x + (rounded - detached)


def round_dynamic(x: Tensor) -> Tensor:
    """Round to u8 and back with the range that the tensor has, as DynamicQuantizeLinear does."""
    low, high = x.detach().aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / U8_STEPS).clamp(min=SMALLEST)
    zero_point = (-low / scale).round().clamp(0, U8_STEPS)
    levels = ((x / scale).round() + zero_point).clamp(0, U8_STEPS)
    return straight_through(x, (levels - zero_point) * scale)
