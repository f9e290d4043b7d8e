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
    """Return AdamW; matrices decay, vectors (norms, biases, gates and scales of iterations) do not."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    matrices = [value for name, value in named if is_matrix(name, value)]
    vectors = [value for name, value in named if not is_matrix(name, value)]
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


def is_matrix(name: str, value: nn.Parameter) -> bool:
    """Tell a matrix from a vector, and from a table whose rows are vectors."""
    return value.dim() >= 2 and not name.endswith("timestep.rows")
