"""Exponential moving average of the weights."""

import copy

import torch
from torch import Tensor

from loopedge.model.transformer import LoopedTransformer

__all__ = ["WeightAverage"]


class WeightAverage:
    """A second model whose weights follow those that are trained.

    The decay grows from 0.1 to ``decay`` over the first steps, (1 + n) / (10 + n), so that the random
    weights of the start are soon forgotten.

    Args:
        model: Is trained; its buffers are not averaged.
        decay: Of each step.
    """

    def __init__(self, model: LoopedTransformer, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: LoopedTransformer, step: int) -> None:
        """Move towards the weights of ``model`` after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(mine, list(model.parameters()), 1 - decay)
