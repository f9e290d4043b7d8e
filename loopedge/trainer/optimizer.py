"""AdamW with warm-up and cosine decay."""

import math

import torch
from torch import nn

from loopedge.trainer.config import TrainConfig

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step (counted from 0): linear warm-up, then cosine decay."""
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, config.steps - warmup))
    least = config.lr * config.min_lr_share
    return least + (config.lr - least) * 0.5 * (1 + math.cos(math.pi * share))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW; matrices decay, vectors (norms, biases) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,  # one pass over all parameters, on the CPU too
    )
