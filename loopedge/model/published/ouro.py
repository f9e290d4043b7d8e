"""Ouro: a Llama with four norms in each layer, all layers four times, and a gate that picks a step for each token.

The released code computes every step, whatever the gate says, and selects among their states; so does this module. With a
threshold of 1 the last step is always the one.

Source: Ouro, arXiv 2510.25741; names of tensors and keys as in its ``config.json``.
"""

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from loopedge.model.contract import Tensors
from loopedge.model.published.blocks import LanguageModel, head_logits, linear, rotary_tables
from loopedge.model.published.configuration import Count, PublishedConfig, Width
from loopedge.model.published.llama import Attention, GatedMLP, RMSNorm

__all__ = ["CONFIG", "MODULE", "Ouro", "OuroConfig"]

NEVER = 1.0
"""The threshold at which no token leaves before the last step."""


class OuroConfig(PublishedConfig):
    """The keys of ``model_type`` ouro."""

    harmless: ClassVar[frozenset[str]] = frozenset({"max_window_layers", "sliding_window"})
    """Of a window that no layer has, since ``use_sliding_window`` must be false."""

    vocab_size: int = Width
    hidden_size: int = Width
    intermediate_size: int = Width
    num_hidden_layers: int = Count
    num_attention_heads: int = Count
    num_key_value_heads: int = Count
    head_dim: int = Field(ge=2, le=65_536, multiple_of=2)
    rms_norm_eps: float = Field(default=1e-6, gt=0, lt=1)
    rope_theta: float = Field(default=1_000_000.0, ge=1)
    max_position_embeddings: int = Field(default=65_536, ge=1)
    tie_word_embeddings: bool = False
    total_ut_steps: int = Field(default=4, ge=1, le=1024)
    early_exit_threshold: float = Field(default=1.0, ge=0, le=1)
    layer_types: tuple[Literal["full_attention"], ...] | None = None

    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    rope_scaling: None = None
    use_sliding_window: Literal[False] = False
    early_exit_step: None = None
    chunk_size: None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads is no multiple of num_key_value_heads")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError("layer_types names another number of layers than num_hidden_layers")
        return self

    @property
    def loops(self) -> int:
        """How often the layers run."""
        return self.total_ut_steps

    def shrunk(self) -> Self:
        """Return the same layers and steps, small."""
        groups = self.num_attention_heads // self.num_key_value_heads
        kv_heads = min(self.num_key_value_heads, 2)
        return self.model_copy(
            update={
                "vocab_size": 61,
                "hidden_size": 40,
                "intermediate_size": 56,
                "num_attention_heads": groups * kv_heads,
                "num_key_value_heads": kv_heads,
                "head_dim": 8,
            }
        )


class Layer(nn.Module):
    """Attention and MLP, each with a norm before and a norm behind it, each added to what it read."""

    def __init__(self, config: OuroConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = Attention(
            width, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        self.input_layernorm_2 = RMSNorm(width, eps)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = GatedMLP(width, config.intermediate_size)
        self.post_attention_layernorm_2 = RMSNorm(width, eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        x = x + self.input_layernorm_2(self.self_attn(self.input_layernorm(x), cos, sin))
        given: Tensor = x + self.post_attention_layernorm_2(
            self.mlp(self.post_attention_layernorm(x))
        )
        return given


class Ouro(LanguageModel):
    """Without a threshold the state is the hidden float32 (batch, sequence, width).

    With one below 1 it is (hidden, chosen, staying, left): the state of the step at which a token leaves,
    the probability that it has not left, and that it has, each float32 (batch, sequence, width or 1).
    """

    model: Any
    lm_head: nn.Linear | None

    def __init__(self, config: OuroConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.loops
        self.selects = config.early_exit_threshold < NEVER
        self.vocab_size, self.max_length = config.vocab_size, config.max_position_embeddings
        width = config.hidden_size
        self.model = nn.Module()
        self.lm_head = None if config.tied else linear(width, config.vocab_size)
        self.model.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.model.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(width, config.rms_norm_eps)
        self.model.early_exit_gate = nn.Linear(width, 1)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Embed the tokens."""
        (ids,) = inputs
        x = self.model.embed_tokens(ids)
        tables = rotary_tables(
            ids.shape[1], self.config.head_dim, self.config.rope_theta, ids.device
        )
        if not self.selects:
            return x, tables
        staying = torch.ones_like(x[..., :1])
        return (x, x, staying, staying - 1), tables

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run all layers and the final norm, which the next step reads too; then the gate, where it selects."""
        cos, sin = context
        if isinstance(state, Tensor):
            return self._step(state, cos, sin)
        x, chosen, staying, left = state
        x = self._step(x, cos, sin)
        chosen = torch.where(left >= self.config.early_exit_threshold, chosen, x)
        leaves = torch.sigmoid(self.model.early_exit_gate(x))
        return x, chosen, staying * (1 - leaves), left + leaves * staying

    def _step(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        normed: Tensor = self.model.norm(x)
        return normed

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Return logits float32 (batch, sequence, vocabulary)."""
        chosen = state if isinstance(state, Tensor) else state[1]
        return head_logits(chosen, self.lm_head, self.model.embed_tokens)


CONFIG, MODULE = OuroConfig, Ouro
