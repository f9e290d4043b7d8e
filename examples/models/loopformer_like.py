"""Blocks conditioned on time and step size, after LoopFormer.

Jeddi et al. 2026, "LoopFormer: Elastic-Depth Looped Transformers for Latent Reasoning" (3 distinct
blocks, 8 loops). A run of r loops is a walk from time 0 to time 1 in r steps of size 1 / r. What it
shows:

- the network that turns (time, step size) into shifts, scales and gates stands in `timestep_table`:
  it runs at export, its results are tables of shape (loops, d_model), it never enters the graph;
- rows that depend on the loop count: r loops are not the first r of more. Such a model is exported
  once per count (``--loops 4``), not with ``--dynamic-loops``.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models.blocks import (
    Attention,
    GatedMLP,
    Rotary,
    example_ids,
    rotary_tables,
    sinusoids,
)

__all__ = ["LoopFormerLike", "make"]

FIELDS = tuple(
    f"{kind}_{branch}" for branch in ("attention", "mlp") for kind in ("shift", "scale", "gate")
)


class Block(nn.Module):
    """A pre-norm layer whose norms and branches are modulated (adaLN, Peebles & Xie 2023)."""

    def __init__(self, d_model: int, heads: int, d_ff: int) -> None:
        super().__init__()
        self.attention = Attention(d_model, heads)
        self.mlp = GatedMLP(d_model, d_ff)

    def forward(self, x: Tensor, rotary: Rotary, row: dict[str, Tensor]) -> Tensor:
        """Apply the block; ``row`` holds `FIELDS`, each float32 (d_model,)."""
        normed = F.rms_norm(x, x.shape[-1:], eps=1e-6)
        normed = normed * row["scale_attention"] + row["shift_attention"]
        x = x + row["gate_attention"] * self.attention(normed, rotary)
        normed = F.rms_norm(x, x.shape[-1:], eps=1e-6)
        normed = normed * row["scale_mlp"] + row["shift_mlp"]
        return x + row["gate_mlp"] * self.mlp(normed)


class Conditioning(nn.Module):
    """Map times and step sizes (loops,) to (loops, blocks, fields, d_model)."""

    def __init__(self, d_model: int, blocks: int) -> None:
        super().__init__()
        self.d_model, self.blocks = d_model, blocks
        self.time = nn.Sequential(nn.Linear(d_model, d_model), nn.SiLU())
        self.step = nn.Sequential(nn.Linear(d_model, d_model), nn.SiLU())
        self.last = nn.Linear(d_model, blocks * len(FIELDS) * d_model)

    def forward(self, times: Tensor, steps: Tensor) -> Tensor:
        # 1000: times in 0 .. 1 would not turn the slower sinusoids.
        mixed = self.time(sinusoids(1000 * times, self.d_model))
        mixed = mixed + self.step(sinusoids(1000 * steps, self.d_model))
        return self.last(mixed).unflatten(-1, (self.blocks, len(FIELDS), self.d_model))


class LoopFormerLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary)."""

    input_names = ("input_ids",)
    output_names = ("logits",)
    max_length = 64
    loop_range = (1, 8)

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        blocks: int = 3,
        loops: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.head_size = vocab_size, d_model // heads
        self.loops = loops
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(Block(d_model, heads, 2 * d_model) for _ in range(blocks))
        self.conditioning = Conditioning(d_model, blocks)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        times = torch.arange(loops) / loops
        rows = self.conditioning(times, torch.full((loops,), 1 / loops))
        table = {}
        for m in range(len(self.blocks)):
            for i, field in enumerate(FIELDS):
                values = rows[:, m, i]  # (loops, d)
                table[f"{m}.{field}"] = 1 + values if field.startswith("scale") else values
        return table

    def prelude(self, input_ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.embedding(input_ids), rotary_tables(input_ids.shape[1], self.head_size)

    def core(self, x: Tensor, context: tuple[Tensor, Tensor], row: dict[str, Tensor]) -> Tensor:
        for m, block in enumerate(self.blocks):
            x = block(x, context, {field: row[f"{m}.{field}"] for field in FIELDS})
        return x

    def coda(self, x: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        return self.head(self.norm(x))


def make() -> LoopFormerLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return LoopFormerLike().eval()
