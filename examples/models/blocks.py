"""What the models of this folder share: attention, gated MLP, a pre-norm layer, rotary positions."""

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

__all__ = [
    "Attention",
    "GatedMLP",
    "PreNormLayer",
    "attend",
    "example_ids",
    "rotary_tables",
    "rotate",
    "sinusoids",
]

Rotary = tuple[Tensor, Tensor] | None
ROTARY_BASE = 10_000.0


def rotary_tables(length: int, head_size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of rotary positions, each float32 (length, head_size)."""
    frequencies = ROTARY_BASE ** -(torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = torch.arange(length)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head_size) by the tables of `rotary_tables`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def sinusoids(values: Tensor, width: int) -> Tensor:
    """Return sines and cosines of ``values`` (n,) at ``width // 2`` frequencies: (n, width)."""
    half = torch.arange(width // 2, dtype=torch.float32) / (width // 2)
    angles = values[:, None] * ROTARY_BASE**-half
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, head_size: int, rotary: Rotary = None, causal: bool = True
) -> Tensor:
    """Split into heads, attend, join: (batch, sequence, heads * head_size).

    Keys and values may have fewer heads than queries: each then serves a group of them
    (grouped-query attention, Ainslie et al. 2023).
    """
    heads = [torch.unflatten(x, -1, (-1, head_size)) for x in (q, k, v)]
    q, k, v = (x.transpose(1, 2) for x in heads)  # (B, nh, S, hs)
    if rotary is not None:
        q, k = rotate(q, *rotary), rotate(k, *rotary)
    grouped = q.shape[1] != k.shape[1]
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
    return attended.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention with rotary positions and, with ``kv_heads`` < ``heads``, grouped queries."""

    def __init__(
        self, d_model: int, heads: int, *, kv_heads: int | None = None, causal: bool = True
    ) -> None:
        super().__init__()
        self.head_size = d_model // heads
        self.causal = causal
        width = (kv_heads or heads) * self.head_size
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.k = nn.Linear(d_model, width, bias=False)
        self.v = nn.Linear(d_model, width, bias=False)
        self.o = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, rotary: Rotary = None) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o(attend(q, k, v, head_size=self.head_size, rotary=rotary, causal=self.causal))


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class PreNormLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, d_model: int, heads: int, d_ff: int, *, causal: bool = True) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = Attention(d_model, heads, causal=causal)
        self.norm_mlp = nn.RMSNorm(d_model, eps=1e-6)
        self.mlp = GatedMLP(d_model, d_ff)

    def forward(self, x: Tensor, rotary: Rotary = None) -> Tensor:
        x = x + self.attention(self.norm_attention(x), rotary)
        return x + self.mlp(self.norm_mlp(x))


def example_ids(vocab_size: int, *, batch: int = 2, sequence: int = 7) -> Tensor:
    """Return token numbers int64 (batch, sequence) to trace with; always the same ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, vocab_size, (batch, sequence), generator=generator)
