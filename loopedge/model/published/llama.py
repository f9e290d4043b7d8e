"""The parts of a Llama, under its names: attention with rotary positions, gated MLP, RMSNorm."""

import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.model.published.blocks import attend, linear, rotate, split_heads

__all__ = ["Attention", "GatedMLP", "RMSNorm"]


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)


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
        self.q_proj = linear(width, heads * head_size)
        self.k_proj = linear(width, kv_heads * head_size)
        self.v_proj = linear(width, kv_heads * head_size)
        self.o_proj = linear(heads * head_size, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        q = rotate(split_heads(self.q_proj(x), self.head_size), cos, sin)  # (B, nh, S, hs)
        k = rotate(split_heads(self.k_proj(x), self.head_size), cos, sin)
        v = split_heads(self.v_proj(x), self.head_size)
        attended: Tensor = self.o_proj(attend(q, k, v))
        return attended


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = linear(width, inner)
        self.up_proj = linear(width, inner)
        self.down_proj = linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        mixed: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return mixed
