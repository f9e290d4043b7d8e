"""HRM-Text (Sapient): a slow and a fast stack of layers; one iteration is one high cycle."""

from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from loopedge.model.contract import Tensors, as_tuple
from loopedge.model.inner import inner_loop
from loopedge.model.published.blocks import (
    LanguageModel,
    attend,
    head_logits,
    linear,
    rotary_tables,
    rotate,
    split_heads,
)
from loopedge.model.published.configuration import (
    MOST_COUNT,
    MOST_WIDTH,
    Count,
    PublishedConfig,
    Width,
)

__all__ = ["CONFIG", "MODULE", "HrmText", "HrmTextConfig"]

CAUSAL_PROMPT = (
    "prefix_lm is set, and prompts are read causally, as transformers' generate reads them without "
    "token_type_ids; the model was trained to read a prompt in both directions"
)


class Rope(BaseModel):
    """Rotary positions as transformers 5 stores them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rope_type: Literal["default"] = "default"
    rope_theta: float = Field(gt=0)


class HrmTextConfig(PublishedConfig):
    """Keys of a ``config.json`` of type ``hrm_text``."""

    harmless: ClassVar[frozenset[str]] = frozenset({"L_bp_cycles"})

    vocab_size: int = Width
    hidden_size: int = Width
    intermediate_size: int = Width
    num_hidden_layers: int = Field(ge=1, le=65_536)
    num_layers_per_stack: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    num_attention_heads: int = Count
    num_key_value_heads: int | None = None
    head_dim: int = Field(default=128, ge=2, le=MOST_WIDTH, multiple_of=2)
    H_cycles: int = Field(default=2, ge=1, le=MOST_COUNT)
    L_cycles: int = Field(default=3, ge=1, le=MOST_COUNT)
    max_position_embeddings: int = Field(ge=1)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    rope_theta: float | None = Field(default=None, gt=0)
    rope_parameters: Rope | None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    tie_word_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)
    embedding_scale: float | None = None
    prefix_lm: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_key_value_heads not in (None, self.num_attention_heads):
            raise ValueError(
                "num_key_value_heads is not num_attention_heads: no such model is known"
            )
        slots = self.layers * self.H_cycles * (self.L_cycles + 1)
        if self.num_hidden_layers not in (self.layers, slots):
            raise ValueError(
                f"num_hidden_layers is {self.num_hidden_layers}, with {self.layers} layers per stack it "
                f"is {self.layers} or {slots}"
            )
        if self.rope_parameters is not None and self.rope_theta not in (None, self.theta):
            raise ValueError("rope_theta and rope_parameters do not agree")
        return self

    @property
    def layers(self) -> int:
        """Layers of each stack."""
        return self.num_layers_per_stack or self.num_hidden_layers

    @property
    def theta(self) -> float:
        """Base of the rotary frequencies."""
        stored = self.rope_parameters.rope_theta if self.rope_parameters else self.rope_theta
        return stored or 10_000.0

    @property
    def scale(self) -> float:
        """What the embedding is multiplied by."""
        stored = self.embedding_scale
        return 1 / self.initializer_range if stored is None else stored

    def shrunk(self) -> Self:
        """Return the same layers and cycles, small."""
        heads = {"num_attention_heads": 2, "num_key_value_heads": None, "head_dim": 8}
        return self.model_copy(
            update={**heads, "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40}
        )


class Attention(nn.Module):
    """Causal attention whose output is gated; gate, queries, keys and values are one product."""

    def __init__(self, config: HrmTextConfig) -> None:
        super().__init__()
        self.head_size = config.head_dim
        width = config.num_attention_heads * config.head_dim
        self.gqkv_proj = linear(config.hidden_size, 4 * width)
        self.o_proj = linear(width, config.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend; x is float32 (batch, sequence, hidden_size), as is the result."""
        gate, *parts = self.gqkv_proj(x).chunk(4, dim=-1)
        q, k, v = (split_heads(part, self.head_size) for part in parts)  # (B, nh, S, hs)
        attended = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        mixed: Tensor = self.o_proj(torch.sigmoid(gate) * attended)
        return mixed


class GatedMLP(nn.Module):
    """down_proj(silu(gate) * up); gate and up are one product."""

    def __init__(self, config: HrmTextConfig) -> None:
        super().__init__()
        self.gate_up_proj = linear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, hidden_size) to the same shape."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        mixed: Tensor = self.down_proj(F.silu(gate) * up)
        return mixed


class Layer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); norms have no weight."""

    def __init__(self, config: HrmTextConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.attn = Attention(config)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer to float32 (batch, sequence, hidden_size)."""
        x = x + self.attn(_norm(x, self.eps), cos, sin)
        mixed: Tensor = x + self.mlp(_norm(x, self.eps))
        return mixed


class Stack(nn.Module):
    """Layers, and a norm after the last."""

    def __init__(self, config: HrmTextConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the stack to float32 (batch, sequence, hidden_size)."""
        for layer in self.layers:
            x = layer(x, cos, sin)
        return _norm(x, self.eps)


class HrmText(LanguageModel):
    """HRM-Text, its prompts read causally.

    The state is (z_H, z_L), each float32 (batch, sequence, hidden_size); the context is the rotary tables.

    Args:
        config: Keys of its ``config.json``.
    """

    model: Any
    lm_head: Any

    def __init__(self, config: HrmTextConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.H_cycles
        self.max_length = config.max_position_embeddings
        self.vocab_size = config.vocab_size
        self.notes = (CAUSAL_PROMPT,) if config.prefix_lm else ()
        self.lm_head = None if config.tied else linear(config.hidden_size, config.vocab_size)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.z_L_init = nn.Parameter(torch.empty(config.hidden_size))
        self.model.L_module = Stack(config)
        self.model.H_module = Stack(config)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Return (z_H, z_L) and (cos, sin)."""
        (input_ids,) = inputs
        rotary = rotary_tables(
            input_ids.shape[1], self.config.head_dim, self.config.theta, input_ids.device
        )
        high = self.model.embed_tokens(input_ids) * self.config.scale
        return (high, self.model.z_L_init.expand_as(high).contiguous()), rotary

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run the low cycles, then the high stack once."""
        high, low = state
        (low,) = as_tuple(inner_loop(self.low_cycle, self.config.L_cycles, low, (high, *context)))
        return self.model.H_module(high + low, *context), low

    def low_cycle(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Refine z_L once; the context is z_H and the context of the core."""
        high, *rotary = context
        assert isinstance(state, Tensor)
        low: Tensor = self.model.L_module(state + high, *rotary)
        return low

    def coda(self, state: Tensors, context: Tensors) -> Tensor:
        """Read z_H."""
        return head_logits(state[0], self.lm_head, self.model.embed_tokens)


def _norm(x: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None, eps)


CONFIG, MODULE = HrmTextConfig, HrmText
