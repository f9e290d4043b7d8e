"""Timestep encodings: what distinguishes one iteration of a tied block from the next.

Every encoding yields, for each layer m of the core, four vectors of d_model values per iteration:
the gates and the norm weights (1 + scale) of attention and MLP (Xu & Sato 2025, section 4).
"""

import math

import torch
from torch import Tensor, nn

from loopedge.model.config import LoopedConfig

__all__ = ["FIELDS", "ConstantTimestep", "LearnedTimestep", "SinusoidalTimestep", "sinusoid"]

FIELDS = ("gate_attention", "gate_mlp", "norm_attention", "norm_mlp")
"""Per-layer entries of a row, in the order in which the paper's module chunks them."""

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


def sinusoid(loops: int) -> Tensor:
    """Return the sinusoidal encoding of iterations 0..loops-1.

    Args:
        loops: Number of iterations.

    Returns:
        float32 (loops, 256): cosines, then sines, of t times 128 frequencies.
    """
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(loops, dtype=torch.float32)[:, None] * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def start_gates(values: nn.Parameter, config: LoopedConfig) -> None:
    """Set the gates among gates and scales (..., layers, 4, d_model), flat or not, to their start."""
    with torch.no_grad():
        fields = values.view(-1, len(FIELDS), config.d_model)
        fields[:, [name.startswith("gate") for name in FIELDS]] = config.gate_init


class SinusoidalTimestep(nn.Module):
    """The paper's generator: sinusoid -> Linear -> SiLU -> Linear -> SiLU -> Linear.

    The last layer starts at zero, so an untrained stack is the identity, unless ``gate_init`` says
    else.
    """

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.layers = config.layers
        self.first = nn.Linear(FREQUENCIES, d_model)
        self.second = nn.Linear(d_model, d_model)
        self.last = nn.Linear(d_model, config.layers * len(FIELDS) * d_model)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        start_gates(self.last.bias, config)

    def forward(self, loops: int) -> Tensor:
        """Return raw gates and scales, float32 (loops, layers, 4, d_model)."""
        silu, device = nn.functional.silu, self.first.weight.device
        # A row per iteration costs next to nothing: gates and norm weights are never rounded.
        with torch.autocast(device.type, enabled=False):
            hidden = silu(self.second(silu(self.first(sinusoid(loops).to(device)))))
            rows = self.last(hidden)
        return torch.unflatten(rows, 1, (self.layers, len(FIELDS), -1))


class LearnedTimestep(nn.Module):
    """A table with one learned row per trained iteration; later iterations repeat the last row."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        shape = (config.loops, config.layers, len(FIELDS), config.d_model)
        self.rows = nn.Parameter(torch.zeros(shape))
        start_gates(self.rows, config)

    def forward(self, loops: int) -> Tensor:
        """Return raw gates and scales, float32 (loops, layers, 4, d_model)."""
        return self.rows[torch.arange(loops).clamp(max=len(self.rows) - 1)]


class ConstantTimestep(nn.Module):
    """The fair control: the same gates and scales, learned, but equal in every iteration."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(config.layers, len(FIELDS), config.d_model))
        start_gates(self.rows, config)

    def forward(self, loops: int) -> Tensor:
        """Return raw gates and scales, float32 (loops, layers, 4, d_model), all rows equal."""
        return self.rows.expand(loops, *self.rows.shape)
