"""A loop that is stable by construction, after Parcae.

Parcae (2026) reads a loop as a dynamical system over depth, h = A h + B e + R(h, e), with a
diagonal A whose entries stay below 1. What it shows:

- injection by a diagonal map, and inside R by addition, h + e;
- A made from a parameter, exp(-softplus(a)): it does not depend on the loop, so export moves it out;
- a learned initial state, the same at every position;
- prelude and coda layers, and several trained loop counts (`loop_range`): the count can be an input
  of the graph (``--dynamic-loops``).
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import loopedge
from examples.models.blocks import PreNormLayer, example_ids, rotary_tables

__all__ = ["ParcaeLike", "make"]

Context = tuple[Tensor, Tensor, Tensor]


class ParcaeLike(loopedge.LoopedModule):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary)."""

    input_names = ("input_ids",)
    output_names = ("logits",)
    max_length = 64
    loop_range = (1, 12)

    def __init__(
        self,
        vocab_size: int = 50,
        d_model: int = 32,
        heads: int = 4,
        layers: tuple[int, int, int] = (1, 2, 1),
        loops: int = 4,
    ) -> None:
        super().__init__()
        self.vocab_size, self.head_size = vocab_size, d_model // heads
        self.loops = loops
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.initial = nn.Parameter(0.02 * torch.randn(d_model))
        self.before, self.recurrent, self.after = (
            nn.ModuleList(PreNormLayer(d_model, heads, 2 * d_model) for _ in range(n))
            for n in layers
        )
        self.decay = nn.Parameter(torch.randn(d_model))  # a
        self.inject = nn.Parameter(torch.randn(d_model))  # B
        self.norm_input = nn.RMSNorm(d_model, eps=1e-6)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (example_ids(self.vocab_size),)

    def prelude(self, input_ids: Tensor) -> tuple[Tensor, Context]:
        rotary = rotary_tables(input_ids.shape[1], self.head_size)
        e = self.embedding(input_ids)
        for layer in self.before:
            e = layer(e, rotary)
        e = self.norm_input(e)
        return self.initial.expand_as(e), (e, *rotary)

    def core(self, h: Tensor, context: Context, row: dict[str, Tensor]) -> Tensor:
        e, *rotary = context
        start = h + e
        x = start
        for layer in self.recurrent:
            x = layer(x, rotary)
        change = x - start  # R(h, e): what the layers add
        return torch.exp(-F.softplus(self.decay)) * h + self.inject * e + change

    def coda(self, h: Tensor, context: Context) -> Tensor:
        _, *rotary = context
        for layer in self.after:
            h = layer(h, rotary)
        return self.head(self.norm(h))


def make() -> ParcaeLike:
    """Return a small model with seeded weights."""
    torch.manual_seed(0)
    return ParcaeLike().eval()
