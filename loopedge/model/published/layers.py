"""What published models share: rotary positions, attention, norms, the gated MLP; no cache, no mask."""

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

__all__ = ["Attention", "GatedMLP", "RMSNorm", "rotary_tables", "rotate"]


def rotary_tables(length: int, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of rotary positions, each float32 (length, head_size); halves are turned together."""
    frequencies = base ** -(torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = torch.arange(length)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head_size) by the tables of `rotary_tables`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x of the same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with rotary positions; fewer key-value heads serve groups of query heads.

    Args:
        width: Of what it reads and gives.
        heads: Of the queries.
        kv_heads: Of keys and values.
        head_size: Of one head; ``heads * head_size`` need not be the width.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, head_size: int) -> None:
        super().__init__()
        self.head_size = head_size
        self.grouped = heads != kv_heads
        self.q_proj = nn.Linear(width, heads * head_size, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_size, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_size, bias=False)
        self.o_proj = nn.Linear(heads * head_size, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, nh, S, hs)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.grouped
        )
        joined: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return joined


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        given: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return given
