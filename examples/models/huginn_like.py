"""Prelude, recurrent core and coda with a random initial state, after Huginn.

Geiping et al. 2025, "Scaling up Test-Time Compute with Latent Reasoning: A Recurrent Depth
Approach" (Huginn-3.5B: 2 layers, 4 layers times r, 2 layers). What it shows:

- layers before and after the loop, which run once;
- injection by concatenation: each loop starts with Linear(2d -> d) of state and embedded input;
- an initial state of noise that comes in as an input, so that the graph holds no random operator;
- a head that shares the embedding's table;
- several trained loop counts (`loop_range`);
- grouped queries: the published model has as many key heads as query heads, this one half as many.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models.blocks import Attention, GatedMLP, Rotary, example_ids, rotary_tables

__all__ = ["HuginnLike", "make"]

NOISE_SEED = 0
"""Seed of the initial state in `HuginnLike.example_inputs`; a deployment chooses its own."""

Context = tuple[Tensor, Tensor, Tensor]


class SandwichLayer(nn.Module):
    """norm(x + attention(norm(x))), then norm(x + mlp(norm(x))): the residual is normed too."""

    def __init__(self, d_model: int, heads: int, kv_heads: int, d_ff: int) -> None:
        super().__init__()
        self.before_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = Attention(d_model, heads, kv_heads=kv_heads)
        self.after_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.before_mlp = nn.RMSNorm(d_model, eps=1e-6)
        self.mlp = GatedMLP(d_model, d_ff)
        self.after_mlp = nn.RMSNorm(d_model, eps=1e-6)

    def forward(self, x: Tensor, rotary: Rotary) -> Tensor:
        x = self.after_attention(x + self.attention(self.before_attention(x), rotary))
        return self.after_mlp(x + self.mlp(self.before_mlp(x)))


class HuginnLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) and ``initial_state`` to ``logits``.

    ``initial_state`` is normal noise float32 (batch, sequence, d_model) of the standard deviation
    in ``random_inputs``. The same noise gives the same logits; zeros are allowed.
    """

    input_names = ("input_ids", "initial_state")
    output_names = ("logits",)
    max_length = 64
    loop_range = (1, 12)

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        kv_heads: int = 2,
        layers: tuple[int, int, int] = (1, 2, 1),
        loops: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.d_model, self.head_size = vocab_size, d_model, d_model // heads
        self.loops = loops
        self.random_inputs = {"initial_state": math.sqrt(2 / 5)}  # after the embedding's scale
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.before, self.recurrent, self.after = (
            nn.ModuleList(SandwichLayer(d_model, heads, kv_heads, 2 * d_model) for _ in range(n))
            for n in layers
        )
        self.adapter = nn.Linear(2 * d_model, d_model, bias=False)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)

    def example_inputs(self) -> tuple[Tensor, ...]:
        ids = example_ids(self.vocab_size)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise = torch.randn(*ids.shape, self.d_model, generator=generator)
        return ids, noise * self.random_inputs["initial_state"]

    def prelude(self, input_ids: Tensor, initial_state: Tensor) -> tuple[Tensor, Context]:
        rotary = rotary_tables(input_ids.shape[1], self.head_size)
        embedded = self.embedding(input_ids) * math.sqrt(self.d_model)
        for layer in self.before:
            embedded = layer(embedded, rotary)
        return initial_state, (embedded, *rotary)

    def core(self, x: Tensor, context: Context, row: dict[str, Tensor]) -> Tensor:
        embedded, *rotary = context
        x = self.adapter(torch.cat([x, embedded], dim=-1))
        for layer in self.recurrent:
            x = layer(x, rotary)
        return x

    def coda(self, x: Tensor, context: Context) -> Tensor:
        _, *rotary = context
        x = self.norm(x)
        for layer in self.after:
            x = layer(x, rotary)
        return F.linear(self.norm(x), self.embedding.weight)


def make() -> HuginnLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return HuginnLike().eval()
