"""What the published models share: rotary positions, norms, attention over grouped heads, what a module says of itself."""

from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.model.contract import LoopedModule

__all__ = [
    "LanguageModel",
    "attend",
    "causal_window",
    "head_logits",
    "interleaved_tables",
    "linear",
    "rotary_tables",
    "rotate",
    "rotate_interleaved",
    "split_heads",
    "unit",
]

EXAMPLE_LENGTH = 7


class LanguageModel(LoopedModule):
    """A looped language model: ``input_ids`` int64 (batch, sequence) to ``logits`` (batch, sequence, vocabulary).

    It is built from its configuration alone, on any device, the meta device too, and has no buffers: what is computed of
    sizes (rotary tables, masks) is computed in the prelude. Its parameters are called as the tensors of the checkpoint,
    where they can be.

    Attributes:
        embedding: The parameter of the embedding.
        head: The parameter of the head; a module with a tied head has the embedding alone.
        unread: Patterns of stored tensors that nothing reads: caches of what is computed.
        vocab_size: Ids of tokens are below it.
        max_length: Positions at most.
    """

    embedding: ClassVar[str] = "model.embed_tokens.weight"
    head: ClassVar[str] = "lm_head.weight"
    unread: tuple[str, ...] = ("*rotary_emb.inv_freq",)
    input_names = ("input_ids",)
    output_names = ("logits",)
    vocab_size: int
    max_length: int

    def state_names(self) -> dict[str, str]:
        """Return under which name each parameter stands in the checkpoint, in the same shape."""
        return {name: name for name, _ in self.named_parameters()}

    def release_name(self, stored: str) -> str:
        """Return what the release calls a tensor that a folder calls ``stored``; tools that save it again rename some."""
        return stored

    def fill_random(self, generator: torch.Generator) -> None:
        """Give the parameters random values of a size that a trained model has: how the architecture is checked."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)
                if parameter.dim() > 1:
                    parameter.mul_(parameter.shape[-1] ** -0.5)
                else:
                    parameter.mul_(0.1).add_(1)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return token numbers to trace with, always the same ones."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, min(EXAMPLE_LENGTH, self.max_length))
        return (torch.randint(self.vocab_size, shape, generator=generator),)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear without bias."""
    return nn.Linear(inputs, outputs, bias=False)


def head_logits(x: Tensor, head: nn.Linear | None, embedding: nn.Embedding) -> Tensor:
    """Return logits float32 (batch, sequence, vocabulary) of x; without a head the embedding is it."""
    return F.linear(x, embedding.weight if head is None else head.weight)


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide the last axis by its Euclidean norm: x / sqrt(sum x^2 + eps).

    It is written as a root mean square norm with a constant weight, which is one operator of ONNX.
    """
    size = x.shape[-1]
    weight = torch.full((size,), size**-0.5, dtype=x.dtype, device=x.device)
    return F.rms_norm(x, (size,), weight, eps / size)


def rotary_tables(
    length: int, size: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of rotary positions for `rotate`, each float32 (length, size)."""
    angles = _angles(length, size, theta, device)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def interleaved_tables(
    length: int, size: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for `rotate_interleaved`, each float32 (length, size)."""
    angles = _angles(length, size, theta, device)
    angles = torch.stack([angles, angles], dim=-1).flatten(-2)
    return angles.cos(), angles.sin()


def _angles(length: int, size: int, theta: float, device: torch.device) -> Tensor:
    """Return the angle of each position and pair of features: float32 (length, size / 2)."""
    half = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    return torch.arange(length, device=device)[:, None] * theta**-half


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head_size): feature i with feature i + half.

    Tables that are narrower than a head turn its first features only (partial rotary positions).
    """
    size = cos.shape[-1]
    if size < x.shape[-1]:
        turned, kept = torch.split(x, [size, x.shape[-1] - size], dim=-1)
        return torch.cat([rotate(turned, cos, sin), kept], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head_size): feature 2 i with feature 2 i + 1."""
    first, second = torch.unflatten(x, -1, (-1, 2)).chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1).flatten(-2) * sin


def split_heads(x: Tensor, head_size: int) -> Tensor:
    """Split (batch, sequence, heads * head_size) into (batch, heads, sequence, head_size)."""
    return torch.unflatten(x, -1, (-1, head_size)).transpose(1, 2)


def causal_window(length: int, window: int, device: torch.device) -> Tensor:
    """Return which keys a query may read: itself and the ``window - 1`` before it, bool (length, length)."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend causally and join the heads: (batch, sequence, heads * head_size).

    Args:
        q: (batch, heads, sequence, head_size).
        k: As q, or with fewer heads, each of which serves a group of queries.
        v: As k.
        mask: bool (sequence, sequence), True where a query reads; default: causal.
    """
    attended = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )
    return attended.transpose(1, 2).flatten(2)
