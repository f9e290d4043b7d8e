"""A looped language model in the shape of Nanbeige 4.2 with random weights, and its decoding in plain PyTorch.

Llama layers, all of them applied in every loop, a norm at the end of each loop, queries in groups, rotary positions by
halves. llama.cpp runs this very model as its architecture `nanbeige`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

__all__ = ["SHAPES", "CachedDecoder", "NanbeigeShaped", "Shape", "make_model"]

EPSILON = 1e-5
ROTARY_BASE = 70_000_000.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model; ``max_length``: positions that a cache holds in this benchmark."""

    d_model: int
    heads: int
    kv_heads: int
    d_ff: int
    layers: int
    loops: int
    vocab_size: int
    max_length: int = 2048

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.d_model // self.heads


SHAPES = {
    "tiny": Shape(d_model=64, heads=4, kv_heads=2, d_ff=96, layers=2, loops=3, vocab_size=128),
    "small": Shape(d_model=256, heads=4, kv_heads=2, d_ff=896, layers=2, loops=4, vocab_size=2048),
    "middle": Shape(
        d_model=512, heads=8, kv_heads=4, d_ff=1792, layers=2, loops=6, vocab_size=4096
    ),
    "block-512": Shape(
        d_model=512, heads=8, kv_heads=4, d_ff=1792, layers=1, loops=12, vocab_size=4096
    ),
    "block-1024": Shape(
        d_model=1024, heads=16, kv_heads=4, d_ff=3584, layers=1, loops=12, vocab_size=4096
    ),
    "large": Shape(
        d_model=1024, heads=16, kv_heads=4, d_ff=3584, layers=4, loops=4, vocab_size=8192
    ),
    "large-32k": Shape(
        d_model=1024, heads=16, kv_heads=4, d_ff=3584, layers=4, loops=4, vocab_size=32768
    ),
}
"""By name; ``tiny`` tries this program, ``large`` is the model of the tables, of ``block-...`` one layer is the block."""


class NanbeigeShaped(nn.Module):
    """``input_ids`` int64 (batch, sequence) to ``logits`` float32 (batch, sequence, vocabulary).

    Args:
        shape: Its sizes.
    """

    input_names = ("input_ids",)
    output_names = ("logits",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.loops, self.max_length = shape, shape.loops, shape.max_length
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.d_model, eps=EPSILON)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return ids to trace with."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randint(0, self.shape.vocab_size, (2, 7), generator=generator),)

    def prelude(self, input_ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Embed."""
        positions = torch.arange(input_ids.shape[1])
        return self.embedding(input_ids), rotary_tables(positions, self.shape.head_size)

    def core(self, state: Tensor, context: tuple[Tensor, Tensor], row: dict[str, Tensor]) -> Tensor:
        """Apply every layer and the norm."""
        for layer in self.typed_layers():
            state = layer.forward(state, context)
        normed: Tensor = self.norm(state)
        return normed

    def coda(self, state: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """Score every token of the vocabulary."""
        logits: Tensor = self.head(state)
        return logits

    def forward(self, input_ids: Tensor) -> Tensor:
        """Compute a whole text."""
        state, context = self.prelude(input_ids)
        for _ in range(self.loops):
            state = self.core(state, context, {})
        return self.coda(state, context)

    def typed_layers(self) -> "list[Layer]":
        """Return the layers."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, kv = shape.d_model, shape.kv_heads * shape.head_size
        self.head_size = shape.head_size
        self.attention_norm = nn.RMSNorm(d, eps=EPSILON)
        self.q = nn.Linear(d, d, bias=False)
        self.k = nn.Linear(d, kv, bias=False)
        self.v = nn.Linear(d, kv, bias=False)
        self.o = nn.Linear(d, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, eps=EPSILON)
        self.gate = nn.Linear(d, shape.d_ff, bias=False)
        self.up = nn.Linear(d, shape.d_ff, bias=False)
        self.down = nn.Linear(shape.d_ff, d, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Compute a whole sequence."""
        q, k, v = self.heads_of(x, rotary)
        return self.after(
            x, F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        )

    def heads_of(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (batch, heads, sequence, head size), the first two turned."""
        normed = self.attention_norm(x)
        projected = (self.q(normed), self.k(normed), self.v(normed))
        q, k, v = (
            torch.unflatten(each, -1, (-1, self.head_size)).transpose(1, 2) for each in projected
        )
        return rotate(q, *rotary), rotate(k, *rotary), v

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return what the layer makes of its input and the attended values."""
        x = x + self.o(attended.transpose(1, 2).flatten(2))
        normed = self.mlp_norm(x)
        more: Tensor = self.down(F.silu(self.gate(normed)) * self.up(normed))
        return x + more


def rotary_tables(positions: Tensor, head_size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of positions int64 (n,), each float32 (n, head size)."""
    frequencies = ROTARY_BASE ** -(torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = positions[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head size) by the tables of `rotary_tables`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class CachedDecoder:
    """Decode with plain PyTorch, eager: keys and values are written into buffers that were there before.

    Args:
        model: The model.
        context: Positions that the buffers hold.
    """

    def __init__(self, model: NanbeigeShaped, context: int) -> None:
        shape = model.shape
        slots = shape.loops * shape.layers
        self.model, self.length = model, 0
        self.keys = torch.zeros(slots, 1, shape.kv_heads, context, shape.head_size)
        self.values = torch.zeros_like(self.keys)

    @torch.inference_mode()
    def run(self, ids: Tensor) -> Tensor:
        """Append ids int64 (1, sequence) and return the last position's logits (1, vocabulary)."""
        model, end = self.model, self.length + ids.shape[1]
        rotary = rotary_tables(torch.arange(self.length, end), model.shape.head_size)
        layers = model.typed_layers()
        x: Tensor = model.embedding(ids)
        for loop in range(model.loops):
            for i, layer in enumerate(layers):
                slot = loop * len(layers) + i
                q, k, v = layer.heads_of(x, rotary)
                self.keys[slot, :, :, self.length : end] = k
                self.values[slot, :, :, self.length : end] = v
                keys, values = self.keys[slot, :, :, :end], self.values[slot, :, :, :end]
                x = layer.after(x, self._attend(q, keys, values))
            x = model.norm(x)
        self.length = end
        logits: Tensor = model.head(x[:, -1])
        return logits

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if q.shape[2] == 1:
            return F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)
        if self.length == 0:
            return F.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=True)
        seen = torch.ones(q.shape[2], keys.shape[2], dtype=torch.bool).tril(self.length)
        return F.scaled_dot_product_attention(q, keys, values, seen, enable_gqa=True)


def make_model(name: str) -> NanbeigeShaped:
    """Return a model of `SHAPES` with seeded weights; its state keeps its size, and each layer adds its share to it."""
    torch.manual_seed(0)
    model = NanbeigeShaped(SHAPES[name]).eval()
    share = (2 * len(model.layers)) ** -0.5
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 2:
                size = 1.0 if "embedding" in key else weight.shape[1] ** -0.5
                weight.normal_(0, size * share if ".o." in key or ".down." in key else size)
            else:
                weight.uniform_(0.5, 1.5)
    return model
