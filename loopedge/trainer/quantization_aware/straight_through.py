"""Rounding whose gradient is that of the identity (straight-through, Bengio et al. 2013)."""

import torch
from torch import Tensor

__all__ = ["U8_STEPS", "round_dynamic", "round_static", "straight_through", "whole"]

U8_STEPS = 255


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


def round_dynamic(x: Tensor) -> Tensor:
    """Round to u8 and back with the range that the tensor has, as DynamicQuantizeLinear does."""
    low, high = x.detach().aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / U8_STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    zero_point = (-low / scale).round().clamp(0, U8_STEPS)
    levels = ((x / scale).round() + zero_point).clamp(0, U8_STEPS)
    return straight_through(x, (levels - zero_point) * scale)
