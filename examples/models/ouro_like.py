"""A looped language model with a norm between loops and a learned exit, after Ouro.

Zhu et al. 2025, "Scaling Latent Reasoning via Looped Language Models" (Ouro-1.4B and 2.6B: 24 and
48 layers, 4 loops). What it shows:

- several distinct layers per loop, each with norms before and after its branches;
- the final norm is a part of the loop: what feeds the head also feeds the next loop;
- an exit gate whose probability accumulates in a second state, and `halt` that reads it.

Without the gate it is the structure of Nanbeige4.2-3B (22 layers, 2 loops).
"""

import torch
from torch import Tensor, nn

import loopedge
from examples.models.blocks import Attention, GatedMLP, Rotary, example_ids, rotary_tables

__all__ = ["OuroLike", "make"]


class SandwichLayer(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    def __init__(self, d_model: int, heads: int, d_ff: int) -> None:
        super().__init__()
        self.before_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = Attention(d_model, heads)
        self.after_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.before_mlp = nn.RMSNorm(d_model, eps=1e-6)
        self.mlp = GatedMLP(d_model, d_ff)
        self.after_mlp = nn.RMSNorm(d_model, eps=1e-6)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = x + self.after_attention(self.attention(self.before_attention(x), rotary))
        return x + self.after_mlp(self.mlp(self.before_mlp(x)))


class OuroLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary).

    Args:
        vocab_size: Tokens.
        d_model: Width of the state.
        heads: Attention heads.
        layers: Distinct layers, all of them applied in every loop.
        loops: Trained loop count.
        threshold: A row exits once its cumulative exit probability reaches this.
    """

    input_names = ("input_ids",)
    output_names = ("logits",)
    max_length = 64

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        layers: int = 2,
        loops: int = 4,
        threshold: float = 0.9,
    ) -> None:
        super().__init__()
        self.vocab_size, self.head_size = vocab_size, d_model // heads
        self.loops, self.threshold = loops, threshold
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.layers = nn.ModuleList(
            SandwichLayer(d_model, heads, 2 * d_model) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.exit_gate = nn.Linear(d_model, 1)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def prelude(self, input_ids: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        x = self.embedding(input_ids)
        stay = torch.ones(input_ids.shape[0])  # (B,): probability of not having left yet
        return (x, stay), rotary_tables(input_ids.shape[1], self.head_size)

    def core(
        self, state: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor], row: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        x, stay = state
        for layer in self.layers:
            x = layer(x, context)
        x = self.norm(x)
        leave = torch.sigmoid(self.exit_gate(x[:, -1]))  # (B, 1), of the position that is generated
        return x, stay * (1 - leave[:, 0])

    def halt(self, state: tuple[Tensor, Tensor], previous: tuple[Tensor, Tensor]) -> Tensor:
        _, stay = state
        return 1 - stay >= self.threshold

    def coda(self, state: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor]) -> Tensor:
        return self.head(state[0])  # normed already, in the core


def make() -> OuroLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return OuroLike().eval()
