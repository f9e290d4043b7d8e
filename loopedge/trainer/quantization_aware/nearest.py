"""Weights rounded to nearest in PyTorch, by the rules of `loopedge.graph.integer_weights`, with straight-through gradients."""

import torch
from torch import Tensor

from loopedge.graph.integer_weights.blocks import SHRUNK, SMALLEST_SCALE
from loopedge.graph.integer_weights.channels import INT8_LIMIT
from loopedge.trainer.quantization_aware.straight_through import straight_through

__all__ = ["round_blocks", "round_channels"]

SMALLEST = float(SMALLEST_SCALE)


def round_channels(weight: Tensor, limit: int = INT8_LIMIT) -> Tensor:
    """Round a weight (outputs, inputs) as `quantize_weight` does, with one scale per output."""
    largest = weight.detach().abs().amax(dim=1, keepdim=True)
    scale = (largest / limit).clamp(min=SMALLEST)
    return straight_through(weight, (weight / scale).round().clamp(-limit, limit) * scale)


def round_blocks(weight: Tensor, *, bits: int, block_size: int) -> Tensor:
    """Round a weight (outputs, inputs) as `quantize_blocks` does, with one scale per block of inputs."""
    outputs, inputs = weight.shape
    filling = -inputs % block_size
    filled = torch.nn.functional.pad(weight.detach(), (0, filling))
    blocks = filled.reshape(outputs, -1, block_size)
    scales = _scales(blocks, bits)
    rounded = _levels(blocks, scales, bits) * scales[..., None]
    return straight_through(weight, rounded.reshape(outputs, -1)[:, :inputs])


def _scales(blocks: Tensor, bits: int) -> Tensor:
    high, low = blocks.amax(dim=-1), blocks.amin(dim=-1)
    widest = torch.where(high > -low, high, low) / -(1 << (bits - 1))
    best = _usable(widest)
    if bits == 8:
        return best
    least = torch.full_like(best, torch.inf)
    for share in SHRUNK:
        scales = _usable(widest * float(share))
        levels = _levels(blocks, scales, bits)
        power = levels.square().sum(dim=-1)
        fitted = (levels * blocks).sum(dim=-1) / power.clamp(min=1)
        scales = _usable(torch.where(power > 0, fitted, scales))
        error = (_levels(blocks, scales, bits) * scales[..., None] - blocks).square().sum(dim=-1)
        best = torch.where(error < least, scales, best)
        least = torch.minimum(error, least)
    return best


def _usable(scales: Tensor) -> Tensor:
    return torch.where(scales.abs() < SMALLEST, SMALLEST, scales)


def _levels(blocks: Tensor, scales: Tensor, bits: int) -> Tensor:
    half = 1 << (bits - 1)
    return (blocks / scales[..., None]).round().clamp(-half, half - 1)
