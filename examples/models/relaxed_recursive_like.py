"""Tied layers with a low-rank correction per loop, after Relaxed Recursive Transformers.

Bae et al. 2025, "Relaxed Recursive Transformers: Effective Parameter Sharing with Layer-wise LoRA".
K layers are applied B times; each (loop, layer) adds its own product of two thin matrices to every
linear map. What it shows:

- rows that are matrices: A (loops, in, rank) and B (loops, rank, out) are timestep tables;
- the correction is added to what the tied weight gives, x W + (x A) B, not to the weight: W stays
  stored once, and no merged copy of it is made in any loop.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models.blocks import Rotary, attend, example_ids, rotary_tables

__all__ = ["RelaxedRecursiveLike", "make"]


class AdaptedLinear(nn.Module):
    """A tied linear map and, per loop, a pair of rank-r factors that come through the row."""

    def __init__(self, inputs: int, outputs: int, rank: int, loops: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.a = nn.Parameter(torch.randn(loops, inputs, rank) / inputs**0.5)
        self.b = nn.Parameter(0.1 * torch.randn(loops, rank, outputs) / rank**0.5)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Map (..., inputs) with this loop's a (inputs, rank) and b (rank, outputs)."""
        return self.linear(x) + (x @ a) @ b


class Layer(nn.Module):
    """A pre-norm layer all of whose linear maps are adapted."""

    def __init__(self, d_model: int, heads: int, d_ff: int, rank: int, loops: int) -> None:
        super().__init__()
        self.head_size = d_model // heads
        self.norm_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.norm_mlp = nn.RMSNorm(d_model, eps=1e-6)
        sizes = dict.fromkeys(("q", "k", "v", "o"), (d_model, d_model))
        sizes |= {"gate": (d_model, d_ff), "up": (d_model, d_ff), "down": (d_ff, d_model)}
        self.maps = nn.ModuleDict(
            {name: AdaptedLinear(*size, rank, loops) for name, size in sizes.items()}
        )

    def forward(self, x: Tensor, rotary: Rotary, row: dict[str, Tensor]) -> Tensor:
        def apply(name: str, x: Tensor) -> Tensor:
            return self.maps[name](x, row[f"maps.{name}.a"], row[f"maps.{name}.b"])

        normed = self.norm_attention(x)
        q, k, v = (apply(name, normed) for name in ("q", "k", "v"))
        x = x + apply("o", attend(q, k, v, head_size=self.head_size, rotary=rotary))
        normed = self.norm_mlp(x)
        return x + apply("down", F.silu(apply("gate", normed)) * apply("up", normed))


class RelaxedRecursiveLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary)."""

    input_names = ("input_ids",)
    output_names = ("logits",)
    max_length = 64

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        layers: int = 2,
        loops: int = 3,
        rank: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.head_size = vocab_size, d_model // heads
        self.loops = loops
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.layers = nn.ModuleList(
            Layer(d_model, heads, 2 * d_model, rank, loops) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        # Past the trained count there are no pairs: the last one is used again.
        index = torch.arange(loops).clamp(max=self.loops - 1)
        return {
            name: values[index]  # "0.maps.q.a", ...
            for name, values in self.layers.named_parameters()
            if name.endswith((".a", ".b"))
        }

    def prelude(self, input_ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.embedding(input_ids), rotary_tables(input_ids.shape[1], self.head_size)

    def core(self, x: Tensor, context: tuple[Tensor, Tensor], row: dict[str, Tensor]) -> Tensor:
        for m, layer in enumerate(self.layers):
            prefix = f"{m}."
            own = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
            x = layer(x, context, own)
        return x

    def coda(self, x: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        return self.head(self.norm(x))


def make() -> RelaxedRecursiveLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return RelaxedRecursiveLike().eval()
