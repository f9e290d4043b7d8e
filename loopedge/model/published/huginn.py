"""Huginn (seal-rg): prelude and coda layers around a block that reads the embedded input in every iteration."""

import math
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from pydantic import Field, model_validator
from torch import Tensor, nn

from loopedge.model.contract import Tensors
from loopedge.model.published.blocks import (
    LanguageModel,
    attend,
    head_logits,
    interleaved_tables,
    linear,
    rotate_interleaved,
)
from loopedge.model.published.configuration import (
    MOST_COUNT,
    MOST_WIDTH,
    Count,
    PublishedConfig,
    Width,
)

__all__ = ["CONFIG", "MODULE", "Huginn", "HuginnConfig"]

ZERO_STATE = (
    "the first state is zeros: the reference draws it at random, scaled by init_values.std, and takes "
    "zeros where that is 0"
)


class HuginnConfig(PublishedConfig):
    """Keys of a ``config.json`` of type ``huginn_raven``."""

    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *("init_strategy", "init_orthogonal", "sampling_scheme", "mean_backprop_depth"),
            *("activation_checkpoint_impl", "padding_multiple", "effective_expected_depth"),
            *("architecture_class_name", "test_time_noise_type", "tie_word_embeddings"),
        }
    )
    tie_key: ClassVar[str | None] = "tie_embeddings"

    vocab_size: int = Width
    padded_vocab_size: int | None = Field(default=None, ge=1, le=MOST_WIDTH)
    n_embd: int = Width
    n_heads: int = Count
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    n_layers: int | None = None
    intermediate_size: int = Width
    block_size: int = Field(ge=1)
    norm_eps: float = Field(default=1e-6, gt=0)
    rope_base: float = Field(default=50_000, gt=0)
    qk_bias: bool = True
    bias: Literal[False] = False
    tie_embeddings: bool = True
    n_layers_in_prelude: int = Field(ge=0, le=MOST_COUNT)
    n_layers_in_recurrent_block: int = Count
    n_layers_in_coda: int = Field(ge=0, le=MOST_COUNT)
    mean_recurrence: int = Field(default=32, ge=1, le=MOST_COUNT)
    injection_type: Literal["linear"] = "linear"
    state_init: Literal["like-init", "zero"] = "like-init"
    block_class_name: Literal["SandwichBlock"] = "SandwichBlock"
    norm_class_name: Literal["RMSNorm_llama"] = "RMSNorm_llama"
    mlp_class_name: Literal["GatedMLP"] = "GatedMLP"
    nonlin_name: Literal["SiLU"] = "SiLU"
    test_time_noise: Literal[0] = 0
    init_values: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_embd % self.n_heads or self.head_size % 2:
            raise ValueError(f"n_embd {self.n_embd} gives {self.n_heads} heads no even size")
        for key, expected in (
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_heads),
            ("head_dim", self.head_size),
            ("n_layers", self.layers),
        ):
            value = getattr(self, key)
            if value is not None and value != expected:
                raise ValueError(f"{key} is {value}, the other keys ask for {expected}")
        if (self.padded_vocab_size or self.vocab_size) < self.vocab_size:
            raise ValueError("padded_vocab_size is less than vocab_size")
        return self

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.n_embd // self.n_heads

    @property
    def layers(self) -> int:
        """Distinct layers."""
        return self.n_layers_in_prelude + self.n_layers_in_recurrent_block + self.n_layers_in_coda

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.padded_vocab_size or self.vocab_size

    @property
    def embed_scale(self) -> float:
        """What the embedding is multiplied by."""
        return self.init_values.get("embed_scale", math.sqrt(self.n_embd))

    def shrunk(self) -> Self:
        """Return the same layers and loops, small."""
        small = {"n_embd": 24, "n_heads": 3, "intermediate_size": 40, "vocab_size": 61}
        derived = ("padded_vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
        return self.model_copy(update={**small, **dict.fromkeys(derived)})


class Attention(nn.Module):
    """Causal attention; a bias is added to queries and keys before they are turned."""

    qk_bias: nn.Parameter | None

    def __init__(self, config: HuginnConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.Wqkv = linear(config.n_embd, 3 * config.n_embd)
        shape = (2, 1, config.n_heads, config.head_size)
        self.qk_bias = nn.Parameter(torch.empty(shape)) if config.qk_bias else None
        self.proj = linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend; x is float32 (batch, sequence, n_embd), as is the result."""
        q, k, v = (
            torch.unflatten(part, -1, (-1, self.head_size))  # (B, S, nh, hs)
            for part in self.Wqkv(x).chunk(3, dim=-1)
        )
        if self.qk_bias is not None:
            q, k = q + self.qk_bias[0], k + self.qk_bias[1]
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, nh, S, hs)
        q, k = rotate_interleaved(q, cos, sin), rotate_interleaved(k, cos, sin)
        attended: Tensor = self.proj(attend(q, k, v))
        return attended


class GatedMLP(nn.Module):
    """proj(silu(first half) * second half)."""

    def __init__(self, config: HuginnConfig) -> None:
        super().__init__()
        self.fc = linear(config.n_embd, 2 * config.intermediate_size)
        self.proj = linear(config.intermediate_size, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, n_embd) to the same shape."""
        gate, up = self.fc(x).chunk(2, dim=-1)
        mixed: Tensor = self.proj(F.silu(gate) * up)
        return mixed


class SandwichBlock(nn.Module):
    """A layer with norms before its branches and after each residual sum."""

    def __init__(self, config: HuginnConfig) -> None:
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3, self.norm_4 = (
            nn.RMSNorm(config.n_embd, eps=config.norm_eps) for _ in range(4)
        )
        self.attn = Attention(config)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the layer to float32 (batch, sequence, n_embd)."""
        x = self.norm_2(self.attn(self.norm_1(x), cos, sin) + x)
        mixed: Tensor = self.norm_4(self.mlp(self.norm_3(x)) + x)
        return mixed


class Huginn(LanguageModel):
    """Huginn, with its first state at zero; the state and all that is between are float32 (batch, sequence, n_embd).

    The context is the embedded input after the prelude's layers, and the rotary tables.

    Args:
        config: Keys of its ``config.json``.
    """

    embedding = "transformer.wte.weight"
    unread = ("freqs_cis",)
    transformer: Any
    lm_head: Any

    def __init__(self, config: HuginnConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.mean_recurrence
        self.loop_range = (1, 2 * config.mean_recurrence)
        self.max_length = config.block_size
        self.vocab_size = config.vocab_size
        self.notes = (ZERO_STATE,) if config.state_init != "zero" else ()

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(SandwichBlock(config) for _ in range(count))

        self.lm_head = None if config.tied else linear(config.n_embd, config.rows)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.rows, config.n_embd),
                "prelude": layers(config.n_layers_in_prelude),
                "adapter": linear(2 * config.n_embd, config.n_embd),
                "core_block": layers(config.n_layers_in_recurrent_block),
                "coda": layers(config.n_layers_in_coda),
                "ln_f": nn.RMSNorm(config.n_embd, eps=config.norm_eps),
            }
        )

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Return zeros and (embedded input, cos, sin)."""
        (input_ids,) = inputs
        rotary = interleaved_tables(
            input_ids.shape[1], self.config.head_size, self.config.rope_base, input_ids.device
        )
        x = self.transformer.wte(input_ids) * self.config.embed_scale
        for block in self.transformer.prelude:
            x = block(x, *rotary)
        return torch.zeros_like(x), (x, *rotary)

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Join the state with the embedded input, then run the block's layers."""
        embedded, *rotary = context
        assert isinstance(state, Tensor)
        x: Tensor = self.transformer.adapter(torch.cat([state, embedded], dim=-1))
        for block in self.transformer.core_block:
            x = block(x, *rotary)
        return x

    def coda(self, state: Tensors, context: Tensors) -> Tensor:
        """Norm, the coda's layers, the same norm again, head."""
        _, *rotary = context
        x = self.transformer.ln_f(state)
        for block in self.transformer.coda:
            x = block(x, *rotary)
        x = self.transformer.ln_f(x)
        return head_logits(x, self.lm_head, self.transformer.wte)


CONFIG, MODULE = HuginnConfig, Huginn
