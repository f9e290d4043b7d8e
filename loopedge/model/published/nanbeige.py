"""Nanbeige 4.2: a Llama whose layers all run several times, with the final norm after each time.

Source: Nanbeige4.2, arXiv 2607.22083; names of tensors and keys as in its ``config.json``.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from loopedge.model.contract import Tensors
from loopedge.model.published.blocks import LanguageModel, head_logits, linear, rotary_tables
from loopedge.model.published.configuration import Count, PublishedConfig, Width
from loopedge.model.published.llama import Attention, GatedMLP, RMSNorm

__all__ = ["CONFIG", "MODULE", "Nanbeige", "NanbeigeConfig"]


class NanbeigeConfig(PublishedConfig):
    """The keys of ``model_type`` nanbeige; ``head_dim`` is explicit, ``hidden_size / heads`` is another number."""

    harmless: ClassVar[frozenset[str]] = frozenset({"pretraining_tp", "mlp_dropout"})

    vocab_size: int = Width
    hidden_size: int = Width
    intermediate_size: int = Width
    num_hidden_layers: int = Count
    num_attention_heads: int = Count
    num_key_value_heads: int = Count
    head_dim: int | None = Field(default=None, ge=2, le=65_536, multiple_of=2)
    kv_channels: int | None = Field(default=None, ge=2, le=65_536, multiple_of=2)
    rms_norm_eps: float = Field(default=1e-5, gt=0, lt=1)
    rope_theta: float = Field(default=70_000_000.0, ge=1)
    max_position_embeddings: int = Field(default=262_144, ge=1)
    tie_word_embeddings: bool = False
    num_loops: int = Field(default=2, ge=1, le=1024)
    loop_loss_weights: tuple[float, ...] | None = None
    skip_loop_final_norm: bool = False

    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    qk_layernorm: Literal[False] = False
    rope_scaling: None = None
    enable_double_loop_split: Literal[False] = False
    loop_share_kv: Literal[False] = False
    enable_hyper_connection: Literal[False] = False
    enable_mhc: Literal[False] = False
    enable_depth_attention: Literal[False] = False
    emb_neighbor_num: Literal[0] | None = None
    ngram_vocab_size_ratio: Literal[0] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads is no multiple of num_key_value_heads")
        if self.head_dim is None and self.kv_channels is None:
            raise ValueError(
                "head_dim is missing: hidden_size / num_attention_heads is another number"
            )
        if None not in (self.head_dim, self.kv_channels) and self.head_dim != self.kv_channels:
            raise ValueError(
                f"head_dim is {self.head_dim} and kv_channels {self.kv_channels}, they are one"
            )
        return self

    @property
    def head_size(self) -> int:
        """Features of one attention head: some files call it ``kv_channels``."""
        return self.head_dim or self.kv_channels or 0

    @property
    def loops(self) -> int:
        """How often the layers run: one more than the weights of the loops, where there are some."""
        return len(self.loop_loss_weights) + 1 if self.loop_loss_weights else self.num_loops

    def shrunk(self) -> Self:
        """Return the same layers and loops, small."""
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
                "kv_channels": None,
            }
        )


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: NanbeigeConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(width, eps)
        self.self_attn = Attention(
            width, config.num_attention_heads, config.num_key_value_heads, config.head_size
        )
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.mlp = GatedMLP(width, config.intermediate_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return (batch, sequence, width)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        given: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return given


class Nanbeige(LanguageModel):
    """The state is the hidden float32 (batch, sequence, width), the context the rotary tables."""

    model: Any
    lm_head: nn.Linear | None

    def __init__(self, config: NanbeigeConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.loops
        self.vocab_size, self.max_length = config.vocab_size, config.max_position_embeddings
        self.model = nn.Module()
        self.lm_head = None if config.tied else linear(config.hidden_size, config.vocab_size)
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Embed the tokens."""
        (ids,) = inputs
        tables = rotary_tables(
            ids.shape[1], self.config.head_size, self.config.rope_theta, ids.device
        )
        return self.model.embed_tokens(ids), tables

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run all layers, then the final norm, unless the configuration leaves it out between loops."""
        cos, sin = context
        x = state
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        if self.config.skip_loop_final_norm:
            return x
        normed: Tensor = self.model.norm(x)
        return normed

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Return logits float32 (batch, sequence, vocabulary)."""
        normed = self.model.norm(state) if self.config.skip_loop_final_norm else state
        assert isinstance(normed, Tensor)
        return head_logits(normed, self.lm_head, self.model.embed_tokens)


CONFIG, MODULE = NanbeigeConfig, Nanbeige
