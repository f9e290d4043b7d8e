"""Blocks of the field, written by hand as people write them: attention, feed-forward, norms, time encodings."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

__all__ = ["Attention", "EncoderLayer", "FeedForward", "TimeTable", "TimedLayer", "sinusoid"]


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Return sines and cosines of positions, float32 (positions, width)."""
    half = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = positions[:, None] * half
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention over float32 (batch, sequence, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; the result has the shape of ``x``."""
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        attended = scores.softmax(dim=-1) @ v
        out: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return out


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, width) to the same shape."""
        mixed: Tensor = self.down(F.gelu(self.up(x)))
        return mixed


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer without a timestep row."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = FeedForward(width, 2 * width)
        self.first = nn.LayerNorm(width)
        self.second = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (batch, sequence, width)."""
        x = x + self.attention(self.first(x))
        mixed: Tensor = self.mlp(self.second(x))
        return x + mixed


class TimeTable(nn.Module):
    """Timestep encoding (Xu & Sato 2025): a step becomes the rows of scales and gates of all layers."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4 * layers * width)
        )

    def forward(self, step: int) -> Tensor:
        """Return float32 (layers, 4, width): two scales and two gates a layer."""
        rows: Tensor = self.mlp(sinusoid(torch.tensor([float(step)]), self.width))
        return rows.view(self.layers, 4, self.width)


class TimedLayer(nn.Module):
    """A pre-norm layer whose norms are scaled, and branches gated, by a timestep row."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = FeedForward(width, 2 * width)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """Apply the layer; ``row`` is float32 (4, width)."""
        scale_attention, gate_attention, scale_mlp, gate_mlp = row.unbind(0)
        x = x + gate_attention * self.attention(normed(x) * (1 + scale_attention))
        mixed: Tensor = self.mlp(normed(x) * (1 + scale_mlp))
        return x + gate_mlp * mixed


def normed(x: Tensor) -> Tensor:
    """Divide by the root mean square of the last axis."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
