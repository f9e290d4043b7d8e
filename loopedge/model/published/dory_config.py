"""The configuration of Dory, in the two spellings that stand on disk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loopedge.model.published.configuration import (
    MOST_COUNT,
    MOST_WIDTH,
    Count,
    PublishedConfig,
    Width,
)

__all__ = ["DoryConfig", "DoryLayer"]

SLIDING, FULL, MLP = "sliding_attention", "full_attention", "mlp"
PATTERN = {"S": SLIDING, "*": FULL, "-": MLP}
THETAS = {SLIDING: 10_000.0, FULL: 10_000_000.0}


class Rope(BaseModel):
    """Rotary positions of one kind of layer, as transformers stores them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rope_type: Literal["default"] = "default"
    rope_theta: float = Field(gt=0)
    partial_rotary_factor: Literal[1] | None = None
    """transformers ignores it here; another value would be read in two ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoryLayer:
    """How one layer attends: ``window`` keys at most, None all; rotary base and turned features."""

    window: int | None
    theta: float
    turned: int


class DoryConfig(PublishedConfig):
    """Keys of a ``config.json`` of type ``dory``.

    Two spellings stand on disk, often in one file: that of the release (``hybrid_layer_pattern``,
    ``attention_head_dim``, ``rope_profile_layers``), which counts attention and MLP as two layers, and that
    of transformers (``layer_types``, ``head_dim``, ``rope_parameters``). Where both are there they must agree.
    """

    tie_key: ClassVar[str | None] = None

    vocab_size: int = Width
    hidden_size: int = Width
    intermediate_size: int = Width
    num_hidden_layers: int = Field(ge=2, le=2 * MOST_COUNT)
    num_attention_heads: int = Count
    num_key_value_heads: int = Count
    max_position_embeddings: int = Field(default=8192, ge=1)
    n_input_layers: int = Field(ge=0)
    n_recurrent_layers: int | None = Field(default=None, ge=1)
    n_output_layers: int = Field(ge=0)
    n_recurrent_loops: int = Field(default=2, ge=1, le=MOST_COUNT)
    ngpt_alpha_init: float = Field(default=0.05, gt=0)
    recurrent_kv_cache_mode: Literal["per_loop", "last_loop"] = "per_loop"

    attention_head_dim: int | None = Field(default=None, ge=2, le=MOST_WIDTH, multiple_of=2)
    head_dim: int | None = Field(default=None, ge=2, le=MOST_WIDTH, multiple_of=2)
    init_method_std: float | None = Field(default=None, gt=0)
    initializer_range: float | None = Field(default=None, gt=0)
    swa_window_size: int | None = Field(default=None, ge=1)
    sliding_window: int | None = Field(default=None, ge=1)
    hybrid_layer_pattern: str | None = None
    layer_types: tuple[Literal["sliding_attention", "full_attention", "mlp"], ...] | None = None

    rope_theta: float = Field(default=10_000, gt=0)
    rope_theta_2: float | None = Field(default=None, gt=0)
    partial_rotary_factor: float = Field(default=1, gt=0, le=1)
    partial_rotary_factor_2: float | None = Field(default=None, gt=0, le=1)
    rope_profile_layers: tuple[Literal[1, 2], ...] | None = None
    no_rope_layers: tuple[Literal[0], ...] | None = None
    rope_parameters: dict[Literal["sliding_attention", "full_attention"], Rope] | None = None

    swa_num_attention_heads: int | None = None
    swa_num_key_value_heads: int | None = None
    swa_head_dim: int | None = None
    attention_output_gate_logit_scale_init: float | None = Field(default=None, gt=0)

    dory_format_version: Literal[1] = 1
    ngpt: Literal[True] = True
    fngpt: Literal[True] = True
    ngpt_enable_final_norm: Literal[False] = False
    attention_output_gate: Literal[True] = True
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    mlp_hidden_act: Literal["silu"] = "silu"
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: Literal[False] = False
    initial_state: Literal["input_copy"] = "input_copy"
    input_transform: Literal["residual"] = "residual"
    output_transform: Literal["replace"] = "replace"
    mixer_type: None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_spellings()
        self._check_counts()
        kinds = self._kinds()
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
        if SLIDING in kinds and self._window is None:
            raise ValueError("swa_window_size is missing: there are sliding layers")
        for key, expected in (
            ("swa_num_attention_heads", self.num_attention_heads),
            ("swa_num_key_value_heads", self.num_key_value_heads),
            ("swa_head_dim", self.head_size),
        ):
            if getattr(self, key) not in (None, expected):
                raise ValueError(f"{key} is {getattr(self, key)}, in full layers it is {expected}")
        if any(layer.turned < 2 or layer.turned % 2 for layer in self.layers):
            raise ValueError("partial_rotary_factor gives no even count of features")
        return self

    def _check_spellings(self) -> None:
        """Refuse two spellings of one thing that differ, and files with none."""
        for ours, theirs in (
            ("attention_head_dim", "head_dim"),
            ("init_method_std", "initializer_range"),
            ("swa_window_size", "sliding_window"),
        ):
            first, second = getattr(self, ours), getattr(self, theirs)
            if None not in (first, second) and first != second:
                raise ValueError(f"{ours} is {first}, {theirs} is {second}")
            if first is None and second is None and ours != "swa_window_size":
                raise ValueError(f"{ours} is missing")
        if self.hybrid_layer_pattern is None and self.layer_types is None:
            raise ValueError("hybrid_layer_pattern is missing: which layers attend to a window")
        unknown = set(self.hybrid_layer_pattern or "") - set(PATTERN)
        if unknown:
            raise ValueError(f"hybrid_layer_pattern holds {min(unknown)!r}, known are S, * and -")

    def _check_counts(self) -> None:
        """Refuse lists that have not one entry per sublayer, and sections that do not add up."""
        count = self.num_hidden_layers
        for key in ("hybrid_layer_pattern", "layer_types", "rope_profile_layers", "no_rope_layers"):
            value = getattr(self, key)
            if value is not None and len(value) != count:
                raise ValueError(f"{key} has {len(value)} entries, num_hidden_layers is {count}")
        sections = (self.n_input_layers, self._recurrent, self.n_output_layers)
        if sum(sections) != count or self._recurrent < 1:
            raise ValueError(
                f"num_hidden_layers is {count}, n_input, n_recurrent and n_output_layers are {sections}"
            )
        if self._paired and any(section % 2 for section in sections):
            raise ValueError(f"a section cuts a pair of attention and MLP: {sections}")

    @property
    def _recurrent(self) -> int:
        stored = self.n_recurrent_layers
        rest = self.num_hidden_layers - self.n_input_layers - self.n_output_layers
        return rest if stored is None else stored

    @property
    def _paired(self) -> bool:
        """Whether counts are of attention and MLP, each by itself."""
        return self.hybrid_layer_pattern is not None or MLP in (self.layer_types or ())

    @property
    def _window(self) -> int | None:
        return self.swa_window_size or self.sliding_window

    def _kinds(self) -> list[str]:
        """Return the kind of attention of each layer, a pair of attention and MLP."""
        spellings: dict[str, list[str]] = {
            "hybrid_layer_pattern": [PATTERN[sign] for sign in self.hybrid_layer_pattern or ""],
            "layer_types": list(self.layer_types or ()),
        }
        found = [self._attending(key, kinds) for key, kinds in spellings.items() if kinds]
        if found[0] != found[-1]:
            raise ValueError("hybrid_layer_pattern and layer_types do not agree")
        return found[0]

    def _attending(self, key: str, kinds: list[str]) -> list[str]:
        """Return the kinds of the attention sublayers, where an MLP follows each of them."""
        if not self._paired:
            return kinds
        if MLP in kinds[::2] or set(kinds[1::2]) != {MLP}:
            raise ValueError(f"{key} does not alternate attention and MLP")
        return kinds[::2]

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.attention_head_dim or self.head_dim or 0

    @property
    def std(self) -> float:
        """What stored scales are divided by."""
        return self.init_method_std or self.initializer_range or 0.0

    @property
    def gate_scale(self) -> float:
        """What ``s_gate`` is multiplied by."""
        stored = self.attention_output_gate_logit_scale_init
        begun = math.sqrt(self.hidden_size) if stored is None else stored
        return math.sqrt(begun) / self.std

    @property
    def sections(self) -> tuple[int, int, int]:
        """Layers before, in and after the loop."""
        step = 2 if self._paired else 1
        return (
            self.n_input_layers // step,
            self._recurrent // step,
            self.n_output_layers // step,
        )

    @property
    def layers(self) -> list[DoryLayer]:
        """How each layer attends, in order."""
        profiled = list(self._profiled())
        named = list(self._named())
        if profiled and named and profiled != named:
            raise ValueError("rope_profile_layers and rope_parameters do not agree")
        return profiled or named

    def shrunk(self) -> Self:
        """Return the same layers and loops, small, with a window that short texts fill."""
        groups = self.num_attention_heads // self.num_key_value_heads
        kv_heads = min(self.num_key_value_heads, 2)
        heads = {"num_attention_heads": groups * kv_heads, "num_key_value_heads": kv_heads}
        small = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, **heads}
        sizes = {
            **dict.fromkeys(("attention_head_dim", "head_dim", "swa_head_dim"), 16),
            **dict.fromkeys(("swa_window_size", "sliding_window"), 5),
            **{f"swa_{key}": count for key, count in heads.items()},
        }
        small |= {key: size for key, size in sizes.items() if getattr(self, key) is not None}
        return self.model_copy(update=small)

    def _profiled(self) -> Iterator[DoryLayer]:
        """Give the layers by their profiles, the spelling of the release."""
        kinds = self._kinds()
        if self.hybrid_layer_pattern is None and self.rope_profile_layers is None:
            return
        profiles = (self.rope_profile_layers or (1,) * self.num_hidden_layers)[
            :: 2 if self._paired else 1
        ]
        second = (
            self.rope_theta_2 or self.rope_theta,
            self.partial_rotary_factor_2 or self.partial_rotary_factor,
        )
        for kind, profile in zip(kinds, profiles, strict=True):
            first = (self.rope_theta, self.partial_rotary_factor)
            theta, factor = second if profile == 2 else first
            yield DoryLayer(
                window=self._window if kind == SLIDING else None,
                theta=theta,
                turned=int(self.head_size * factor),
            )

    def _named(self) -> Iterator[DoryLayer]:
        """Give the layers by their kinds, the spelling of transformers."""
        if self.rope_parameters is None and self.hybrid_layer_pattern is not None:
            return
        given = self.rope_parameters or {}
        thetas: dict[str, float] = {kind: rope.rope_theta for kind, rope in given.items()}
        for kind in self._kinds():
            if given and kind not in thetas:
                raise ValueError(f"rope_parameters has no {kind}")
            yield DoryLayer(
                window=self._window if kind == SLIDING else None,
                theta=thetas.get(kind, THETAS[kind]),
                turned=self.head_size,
            )
