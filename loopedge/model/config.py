"""Configuration of the reference looped transformer (torch-free)."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["LoopedConfig"]


class LoopedConfig(BaseModel):
    """Sizes and choices of a `LoopedTransformer`.

    Exactly one of ``vocab_size`` (token inputs, int64 (batch, sequence)) and ``features``
    (continuous inputs, float32 (batch, sequence, features), float64 where it is ``wide``) is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: int = Field(default=64, ge=2, le=65536)
    heads: int = Field(default=4, ge=1, le=1024)
    layers: int = Field(default=1, ge=1, le=256, description="Distinct layers in the core.")
    loops: int = Field(default=4, ge=1, le=65536, description="Trained loop count.")
    min_loops: int | None = Field(
        default=None, ge=1, description="Least loops it was trained with, where they were drawn."
    )
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    bias: bool = Field(default=False, description="Biases in the linears of the core.")
    vocab_size: int | None = Field(default=None, ge=1)
    features: int | None = Field(default=None, ge=1)
    outputs: int | None = Field(
        default=None, ge=1, description="Width of the head; default: vocab_size or features."
    )
    classify: bool = Field(
        default=False, description="Continuous inputs: the outputs are logits of classes, unscaled."
    )
    missing: bool = Field(
        default=False, description="Continuous inputs may be NaN; a second channel says where."
    )
    wide: bool = Field(
        default=False,
        description="Continuous inputs and outputs are float64: they are centred before float32.",
    )
    scaling: Literal["column", "window"] = Field(
        default="column",
        description="Continuous inputs: scaled by stored numbers alone, or by those of each window.",
    )
    horizon: int | None = Field(
        default=None, ge=1, description="Steps a read='last' head gives: (batch, horizon, outputs)."
    )
    read: Literal["all", "last"] = Field(
        default="all", description="Which positions the head reads."
    )
    tied_head: bool = Field(
        default=True, description="Token models: the head shares the embedding's weight."
    )
    max_length: int = Field(default=128, ge=1, le=1_048_576)
    min_length: int | None = Field(
        default=None, ge=1, description="Fewest positions that it was trained on, where known."
    )
    causal: bool = True
    padding: bool = Field(default=False, description="Takes attention_mask (batch, sequence).")
    positions: Literal["learned", "rotary", "none"] = "learned"
    timestep: Literal["none", "constant", "sinusoidal", "learned"] = "sinusoidal"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    gate_init: float = Field(
        default=0.0,
        ge=-10,
        le=10,
        description="Where the gates of a timestep encoding start; the paper's module: 0.",
    )
    init_std: float = Field(
        default=0.02, gt=0, le=1, description="Of the initial weights; the paper's module: 0.02."
    )
    embedding_std: float | None = Field(
        default=None, gt=0, le=10, description="Of what reads the inputs; default: init_std."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.vocab_size is None) == (self.features is None):
            raise ValueError("set exactly one of vocab_size and features")
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and (self.d_model // self.heads) % 2:
            raise ValueError("rotary positions need an even head size d_model / heads")
        if self.min_loops is not None and self.min_loops > self.loops:
            raise ValueError(f"min_loops {self.min_loops} is more than loops {self.loops}")
        if self.horizon is not None and self.read != "last":
            raise ValueError("horizon needs read='last'")
        for name in ("classify", "missing", "wide"):
            if getattr(self, name) and self.features is None:
                raise ValueError(f"{name} is of continuous inputs: set features")
        self._check_windows()
        return self

    def _check_windows(self) -> None:
        """Refuse windows whose statistics say what comes later, or whose outputs belong to no column."""
        if self.scaling != "window":
            return
        if self.features is None:
            raise ValueError("scaling 'window' is of continuous inputs: set features")
        if self.read != "last":
            raise ValueError("scaling 'window' needs read='last': it sees the whole window")
        if not self.classify and self.head_outputs > self.features:
            raise ValueError(
                f"scaling 'window' scales outputs as the first features: {self.head_outputs} outputs, "
                f"{self.features} features"
            )

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.d_model // self.heads

    @property
    def d_ff(self) -> int:
        """Hidden features of the MLP."""
        return round(self.d_model * self.mlp_ratio)

    @property
    def gives_classes(self) -> bool:
        """Whether the outputs are logits: of tokens or of classes."""
        return self.vocab_size is not None or self.classify

    @property
    def head_outputs(self) -> int:
        """Width of one read position of the output."""
        return self.outputs or self.vocab_size or self.features or 0

    @property
    def scales_outputs_by_window(self) -> bool:
        """Whether outputs come back through the mean and deviation of their window."""
        return self.scaling == "window" and not self.gives_classes

    @property
    def head_is_tied(self) -> bool:
        """Whether the head reads the embedding's weight."""
        return (
            self.tied_head
            and self.vocab_size is not None
            and self.horizon is None
            and self.head_outputs == self.vocab_size
        )
