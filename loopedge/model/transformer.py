"""The reference looped transformer, with and without timestep encoding (Xu & Sato 2025)."""

import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.data.tables.window_scaling import WINDOW_FLOOR
from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from loopedge.model.timestep import (
    FIELDS,
    ConstantTimestep,
    LearnedTimestep,
    SinusoidalTimestep,
)

__all__ = ["LoopedTransformer"]

ROTARY_BASE = 10_000.0
READERS = ("embedding.weight", "position.weight", "input.weight")
"""Weights that inputs meet first."""
NORM_EPS = torch.finfo(torch.float32).eps  # what torch.nn.RMSNorm takes by default


class Attention(nn.Module):
    """Multi-head self-attention; mask and rotary tables come from the context."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.causal = config.causal
        d_model = config.d_model
        self.q = nn.Linear(d_model, d_model, bias=config.bias)
        self.k = nn.Linear(d_model, d_model, bias=config.bias)
        self.v = nn.Linear(d_model, d_model, bias=config.bias)
        self.o = nn.Linear(d_model, d_model, bias=config.bias)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, ...]) -> Tensor:
        """Attend; x is float32 (batch, sequence, d_model), as is the result."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, nh, S, hs)
            for projection in (self.q, self.k, self.v)
        )
        if rotary:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and mask is None
        )
        return cast("Tensor", self.o(attended.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, d_model) to the same shape."""
        return cast("Tensor", self.down(F.gelu(self.up(x))))


class Layer(nn.Module):
    """One pre-norm transformer layer whose norms and branches take a row of the table."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, ...], row: dict[str, Tensor]
    ) -> Tensor:
        """Apply the layer; ``row`` holds `FIELDS`, each float32 (d_model,), or nothing."""
        attended = self.attention(rms_norm(x, row.get("norm_attention")), mask, rotary)
        x = x + self.dropout(gated(attended, row.get("gate_attention")))
        mixed: Tensor = self.mlp(rms_norm(x, row.get("norm_mlp")))
        changed: Tensor = self.dropout(gated(mixed, row.get("gate_mlp")))
        return x + changed


class LoopedTransformer(LoopedModule):
    """A transformer whose core of ``config.layers`` layers is applied ``config.loops`` times.

    Token models take ``input_ids`` int64 (batch, sequence), continuous ones ``inputs`` float32
    (batch, sequence, features); with ``config.padding`` both also take ``attention_mask`` int64
    (batch, sequence), 1 = keep. The output is float32 (batch, sequence, outputs); with
    ``read="last"`` (batch, outputs) of the last position, or (batch, horizon, outputs).

    Continuous models carry the scaling of their data: inputs in raw units come in, outputs in raw
    units come out (`set_scaling`); with ``config.classify`` they are logits, not scaled. With
    ``config.missing`` an input may be NaN: it becomes the mean, and a second channel says so.

    With ``config.wide`` such inputs and outputs are float64, and so is the scaling: the mean is
    subtracted before float32 would round what is left of a value, and added after. With
    ``config.scaling`` ``window`` each window is scaled by its own mean and deviation too, over the
    positions that the mask keeps and the values that are there; outputs come back through those of the
    first features. No deviation is below `WINDOW_FLOOR` of the stored one.

    Args:
        config: Sizes and choices.
    """

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.loops
        if config.min_loops is not None:
            self.loop_range = (config.min_loops, config.loops)
        d_model, outputs = config.d_model, config.head_outputs
        if config.vocab_size is not None:
            self.embedding = nn.Embedding(config.vocab_size, d_model)
        else:
            features = config.features or 0
            self.input = nn.Linear(features * 2 if config.missing else features, d_model)
            dtype = torch.float64 if config.wide else torch.float32
            self.register_buffer("input_mean", torch.zeros(features, dtype=dtype))
            self.register_buffer("input_scale", torch.ones(features, dtype=dtype))
            self.register_buffer("output_mean", torch.zeros(outputs, dtype=dtype))
            self.register_buffer("output_scale", torch.ones(outputs, dtype=dtype))
        if config.positions == "learned":
            self.position = nn.Embedding(config.max_length, d_model)
        self.core_layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(d_model)
        if not config.head_is_tied:
            self.head = nn.Linear(d_model, outputs * (config.horizon or 1), bias=False)
        self.apply(lambda module: initialise(module, config.init_std))
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.o.weight", "mlp.down.weight")):
                nn.init.normal_(parameter, std=config.init_std / math.sqrt(2 * config.layers))
            elif name in READERS and config.embedding_std is not None:
                nn.init.normal_(parameter, std=config.embedding_std)
        # After `initialise`: the generator keeps PyTorch's own initialisation and its zero end.
        if config.timestep == "sinusoidal":
            self.timestep: nn.Module = SinusoidalTimestep(config)
        elif config.timestep == "learned":
            self.timestep = LearnedTimestep(config)
        elif config.timestep == "constant":
            self.timestep = ConstantTimestep(config)

    def set_scaling(
        self, input_mean: Tensor, input_scale: Tensor, output_mean: Tensor, output_scale: Tensor
    ) -> None:
        """Store the scaling fitted on training data: (features,) and (outputs,), float32 or float64.

        Raises:
            ValueError: A token model has no scaling, or a shape differs.
        """
        if self.config.features is None:
            raise ValueError("a token model has no scaling")
        for name, value in (
            ("input_mean", input_mean),
            ("input_scale", input_scale),
            ("output_mean", output_mean),
            ("output_scale", output_scale),
        ):
            buffer = self.get_buffer(name)
            if buffer.shape != value.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not {buffer.shape}")
            buffer.copy_(value)

    def prelude(  # type: ignore[override]  # one or two inputs, of all that the contract allows
        self, inputs: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embed the inputs.

        Args:
            inputs: int64 (batch, sequence) or float32 (batch, sequence, features), raw units.
            attention_mask: int64 (batch, sequence), 1 = keep; None keeps all.

        Returns:
            The state float32 (batch, sequence, d_model) and the context: rotary tables, mean and deviation
            of the outputs' columns in each window (batch, 1, outputs), then the boolean mask, as far as the
            configuration needs them.

        Raises:
            InputError: The sequence is longer than the learned positions.
        """
        length = inputs.shape[1]
        self._check_length(length)
        window: tuple[Tensor, ...] = ()
        if self.config.vocab_size is not None:
            x = self.embedding(inputs)
        else:
            channels, window = self._channels(inputs, attention_mask)
            x = self.input(channels.to(self.input.weight.dtype))
        if self.config.positions == "learned":
            x = x + self.position.weight[:length]
        context: tuple[Tensor, ...] = ()
        if self.config.positions == "rotary":
            context = rotary_tables(length, self.config.head_size, x.device)
        context = (*context, *window)
        if attention_mask is not None:
            context = (*context, attention_pattern(attention_mask, causal=self.config.causal))
        return x, context

    def _channels(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Scale raw inputs (batch, sequence, features); with ``missing`` say 1 or 0 of each behind.

        Returns:
            The channels, and what the coda needs to undo a scaling by window.
        """
        config = self.config
        scaled = (inputs - self.get_buffer("input_mean")) / self.get_buffer("input_scale")
        seen = None if mask is None else mask.to(torch.bool)[:, :, None]  # (B, S, 1)
        missing = torch.isnan(inputs) if config.missing else None
        if missing is not None:
            scaled = torch.where(missing, torch.zeros_like(scaled), scaled)  # the mean, once scaled
        window: tuple[Tensor, ...] = ()
        if config.scaling == "window":
            if missing is not None:
                seen = ~missing if seen is None else seen & ~missing
            mean, deviation = window_statistics(scaled, seen)
            scaled = (scaled - mean) / deviation
            if seen is not None:
                scaled = torch.where(seen, scaled, torch.zeros_like(scaled))
            if config.scales_outputs_by_window:
                outputs = config.head_outputs
                window = (mean[:, :, :outputs], deviation[:, :, :outputs])
        if missing is not None:
            scaled = torch.cat([scaled, missing.to(scaled.dtype)], dim=-1)  # (B, S, 2 features)
        return scaled, window

    def _check_length(self, length: int) -> None:
        """Refuse what the learned positions do not reach: a single one would be broadcast."""
        # A comparison would fix the axis while the graph is captured; the artifact carries the limit.
        if torch.compiler.is_exporting() or self.config.positions != "learned":
            return
        if length > self.config.max_length:
            raise InputError(
                f"the sequence has {length} positions, the model learned {self.config.max_length}",
                hint="shorten it, or train with a longer max_length or with rotary positions",
            )

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensor:
        """Apply the tied layers once; all states are float32 (batch, sequence, d_model)."""
        (x,) = as_tuple(state)
        tensors = as_tuple(context)
        rotary = tensors[:2] if self.config.positions == "rotary" else ()
        known = len(rotary) + (2 if self.config.scales_outputs_by_window else 0)
        mask = tensors[-1] if len(tensors) > known else None
        for m, layer in enumerate(self.core_layers):
            fields = {name: row[f"{name}.{m}"] for name in FIELDS} if row else {}
            x = layer(x, mask, rotary, fields)
        return x

    def coda(self, state: Tensors, context: Tensors) -> Tensor:
        """Read the outputs off the last state."""
        (x,) = as_tuple(state)
        config = self.config
        if config.read == "last":
            x = x[:, -1]
        x = self.norm(x)
        if config.head_is_tied:
            return F.linear(x, self.embedding.weight)
        outputs: Tensor = self.head(x)
        if config.horizon is not None:
            outputs = torch.unflatten(outputs, -1, (config.horizon, config.head_outputs))
        if config.gives_classes:
            return outputs
        if config.wide:
            outputs = outputs.double()
        if config.scales_outputs_by_window:
            start = 2 if config.positions == "rotary" else 0
            mean, deviation = as_tuple(context)[start : start + 2]  # (B, 1, outputs)
            if config.horizon is None:
                mean, deviation = mean[:, 0], deviation[:, 0]
            outputs = outputs * deviation + mean
        return outputs * self.get_buffer("output_scale") + self.get_buffer("output_mean")

    def timestep_table(self, loops: int) -> dict[str, Tensor]:
        """Return the rows of iterations 0..loops-1, each float32 (loops, d_model).

        The scale is stored as the finished norm weight 1 + scale.
        """
        if self.config.timestep == "none":
            return {}
        return split_fields(self.timestep(loops))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the prelude's inputs in the exported graph."""
        first = "input_ids" if self.config.vocab_size is not None else "inputs"
        return (first, "attention_mask") if self.config.padding else (first,)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the coda's outputs in the exported graph."""
        return ("logits",) if self.config.gives_classes else ("outputs",)


def split_fields(rows: Tensor) -> dict[str, Tensor]:
    """Split (loops, layers, 4, d_model) into one entry per layer and field, scales made weights."""
    fields = {}
    for m in range(rows.shape[1]):
        for i, name in enumerate(FIELDS):
            values = rows[:, m, i]
            fields[f"{name}.{m}"] = 1 + values if name.startswith("norm") else values
    return fields


def window_statistics(scaled: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each window, (batch, 1, features), of the values that are seen.

    `loopedge.data.tables.window_scaling.window_statistics` computes the same with numpy.

    Args:
        scaled: (batch, sequence, features), in units of the stored scaling; no NaN.
        seen: bool, as ``scaled`` or (batch, sequence, 1); None: all are.
    """
    if seen is None:
        mean = scaled.mean(dim=1, keepdim=True)
        squared = (scaled - mean).square().mean(dim=1, keepdim=True)
    else:
        weights = seen.to(scaled.dtype)
        count = weights.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (scaled * weights).sum(dim=1, keepdim=True) / count
        squared = ((scaled - mean).square() * weights).sum(dim=1, keepdim=True) / count
    return mean, squared.sqrt().clamp(min=WINDOW_FLOOR)


def rms_norm(x: Tensor, weight: Tensor | None) -> Tensor:
    """Normalise the last axis by its root mean square, times ``weight`` (d_model,)."""
    return F.rms_norm(x, (x.shape[-1],), weight, NORM_EPS)


def gated(x: Tensor, gate: Tensor | None) -> Tensor:
    """Multiply by the gate (d_model,), where there is one."""
    return x if gate is None else x * gate


def rotary_tables(length: int, head_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of rotary positions, each float32 (length, head_size)."""
    half = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    angles = torch.arange(length, device=device)[:, None] * ROTARY_BASE**-half
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (batch, heads, sequence, head_size) by rotary tables (sequence, head_size)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attention_pattern(attention_mask: Tensor, *, causal: bool) -> Tensor:
    """Return which keys a query may read, as bool (batch, 1, sequence, sequence).

    A query always reads itself: a kept one would anyway, the output of a padded one is ignored but
    must not become NaN.
    """
    length = attention_mask.shape[1]
    position = torch.arange(length, device=attention_mask.device)
    itself = position[None, :] == position[:, None]  # (S, S)
    readable = attention_mask.to(torch.bool)[:, None, None, :]  # (B, 1, 1, S)
    if causal:
        readable = readable & (position[None, :] <= position[:, None])
    return readable | itself


def initialise(module: nn.Module, std: float) -> None:
    """Initialise linears and embeddings as the paper's module does, whose ``std`` is 0.02."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
