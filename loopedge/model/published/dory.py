"""Dory (NVIDIA): states of norm 1, residuals that turn towards a branch, loops chosen at run time."""

import re
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.model.contract import Tensors
from loopedge.model.published.blocks import (
    LanguageModel,
    attend,
    causal_window,
    linear,
    rotary_tables,
    rotate,
    split_heads,
    unit,
)
from loopedge.model.published.dory_config import DoryConfig, DoryLayer

__all__ = ["CONFIG", "MODULE", "Dory", "DoryConfig"]

PUBLISHED_LOOPS = 4
"""Loops that the release is evaluated with, at most."""

LAST_LOOP = (
    "recurrent_kv_cache_mode is last_loop, and every loop keeps its own keys and values unless the file is made by "
    "loopedge to-generate MODEL --form unrolled --cache last-loop"
)

ALPHAS = {"lambda_1": "attn_alpha", "lambda_2": "mlp_alpha"}
RELEASED = re.compile(r"layers\.(\d+)\.(self_attn|mlp|lambda_1|lambda_2)(?=\.|$)(.*)")
ROOT = re.compile(r"^model\.")
SCALES = ("sqk", "s_gate", "lambda_1", "lambda_2", "logit_scale")
"""Parameters that are stored as multiples of the standard deviation that weights began with."""

Tables = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Causal attention over queries and keys of norm 1, its output gated and brought to norm 1."""

    def __init__(self, config: DoryConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.query_scale = config.head_size**0.5 / config.std
        self.gate_scale = config.gate_scale
        width, hidden = config.num_attention_heads * config.head_size, config.hidden_size
        self.q_proj = linear(hidden, width)
        self.k_proj = linear(hidden, config.num_key_value_heads * config.head_size)
        self.v_proj = linear(hidden, config.num_key_value_heads * config.head_size)
        self.gate_proj = linear(hidden, width)
        self.o_proj = linear(width, hidden)
        self.sqk = nn.Parameter(torch.empty(width))
        self.s_gate = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, tables: Tables, mask: Tensor | None) -> Tensor:
        """Attend; x is float32 (batch, sequence, hidden_size), as is the result."""
        q = rotate(unit(split_heads(self.q_proj(x), self.head_size)), *tables)  # (B, nh, S, hs)
        k = rotate(unit(split_heads(self.k_proj(x), self.head_size)), *tables)
        v = split_heads(self.v_proj(x), self.head_size)
        scale = (self.sqk * self.query_scale).square()
        attended = attend(q * scale.reshape(-1, 1, self.head_size), k, v, mask)
        gate = torch.sigmoid(self.gate_proj(x) * (self.s_gate * self.gate_scale).square())
        mixed: Tensor = self.o_proj(unit(attended * gate))
        return mixed


class GatedMLP(nn.Module):
    """SwiGLU with learned scales of gate and up, its hidden features brought to norm 1."""

    def __init__(self, config: DoryConfig) -> None:
        super().__init__()
        self.scale = config.hidden_size**0.5
        self.gate_proj = linear(config.hidden_size, config.intermediate_size)
        self.up_proj = linear(config.hidden_size, config.intermediate_size)
        self.down_proj = linear(config.intermediate_size, config.hidden_size)
        self.suv_gate = nn.Parameter(torch.empty(config.intermediate_size))
        self.suv_up = nn.Parameter(torch.empty(config.intermediate_size))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, hidden_size) to the same shape."""
        gate = F.silu(self.gate_proj(x) * (self.suv_gate * self.scale))
        up = self.up_proj(x) * (self.suv_up * self.scale)
        mixed: Tensor = self.down_proj(unit(gate * up))
        return mixed


class Layer(nn.Module):
    """Attention, then MLP; each moves the state, of norm 1, towards the branch, of norm 1 too."""

    def __init__(self, config: DoryConfig, attends: DoryLayer) -> None:
        super().__init__()
        self.attends = attends
        self.rate_scale = config.ngpt_alpha_init / config.std
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.lambda_1 = nn.Parameter(torch.empty(config.hidden_size))
        self.lambda_2 = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: Tensor, tables: Tables, mask: Tensor | None) -> Tensor:
        """Apply the layer to float32 (batch, sequence, hidden_size); the result is not of norm 1 yet."""
        x = unit(x)
        x = unit(x + self._rate(self.lambda_1) * (unit(self.self_attn(x, tables, mask)) - x))
        return x + self._rate(self.lambda_2) * (unit(self.mlp(x)) - x)

    def _rate(self, stored: Tensor) -> Tensor:
        return (stored * self.rate_scale).abs()


class Head(nn.Module):
    """A linear whose logits have a learned scale each."""

    def __init__(self, config: DoryConfig) -> None:
        super().__init__()
        self.scale = 1 / config.std
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.logit_scale = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (batch, sequence, hidden_size) to logits."""
        return F.linear(x * self.scale, self.weight) * self.logit_scale


class Dory(LanguageModel):
    """Dory; the state is float32 (batch, sequence, hidden_size).

    The context is the input that every loop starts from again, then cosines and sines of each kind of
    rotary positions, then which keys a query of a sliding layer may read, where there are such layers.

    Args:
        config: Keys of its ``config.json``.
    """

    model: Any
    lm_head: Any

    def __init__(self, config: DoryConfig) -> None:
        super().__init__()
        self.config = config
        self.loops = config.n_recurrent_loops
        self.loop_range = (1, max(PUBLISHED_LOOPS, self.loops))
        self.max_length = config.max_position_embeddings
        self.vocab_size = config.vocab_size
        self.notes = (LAST_LOOP,) if config.recurrent_kv_cache_mode == "last_loop" else ()
        attending = config.layers
        self.turns = sorted({(layer.theta, layer.turned) for layer in attending})
        self.windows = sorted({layer.window for layer in attending if layer.window is not None})
        self.lm_head = Head(config)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config, layer) for layer in attending)

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Embed, run the layers before the loop, and make tables and masks from the length."""
        (input_ids,) = inputs
        length, device = input_ids.shape[1], input_ids.device
        shared: tuple[Tensor, ...] = ()
        for theta, turned in self.turns:
            shared = (*shared, *rotary_tables(length, turned, theta, device))
        for window in self.windows:
            shared = (*shared, causal_window(length, window, device))
        before, _, _ = self._sections()
        x = self._run(before, self.model.embed_tokens(input_ids), shared)
        return x, (unit(x), *shared)

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Add the input again, then run the recurrent layers."""
        again, *shared = context
        assert isinstance(state, Tensor)
        _, looped, _ = self._sections()
        return self._run(looped, unit(state) + again, tuple(shared))

    def coda(self, state: Tensors, context: Tensors) -> Tensor:
        """Run the layers after the loop, and read the logits."""
        _, *shared = context
        assert isinstance(state, Tensor)
        _, _, after = self._sections()
        logits: Tensor = self.lm_head(unit(self._run(after, state, tuple(shared))))
        return logits

    def state_names(self) -> dict[str, str]:
        """Return what the release calls each parameter: there attention and MLP are layers of their own."""
        return {name: self.release_name(name) for name, _ in self.named_parameters()}

    def release_name(self, stored: str) -> str:
        """Return what the release calls a tensor: transformers has other names in memory, and others on disk."""
        name = RELEASED.sub(_sublayer, stored)
        return ROOT.sub("backbone.", name).replace("backbone.embed_tokens.", "backbone.embeddings.")

    def fill_random(self, generator: torch.Generator) -> None:
        """Give the parameters random values; scales are stored as multiples of the standard deviation."""
        super().fill_random(generator)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(SCALES):
                    parameter.mul_(self.config.std)

    def _sections(self) -> tuple[Any, Any, Any]:
        before, looped, _ = self.config.sections
        layers = self.model.layers
        return layers[:before], layers[before : before + looped], layers[before + looped :]

    def _run(self, layers: Any, x: Tensor, shared: tuple[Tensor, ...]) -> Tensor:
        for layer in layers:
            attends = layer.attends
            place = 2 * self.turns.index((attends.theta, attends.turned))
            mask = None
            if attends.window is not None:
                mask = shared[2 * len(self.turns) + self.windows.index(attends.window)]
            x = layer(x, (shared[place], shared[place + 1]), mask)
        return x


def _sublayer(found: re.Match[str]) -> str:
    """Rename one tensor of a layer, a pair of attention and MLP, as its sublayer calls it."""
    layer, kind, rest = int(found[1]), found[2], found[3]
    if kind in ALPHAS:
        return f"layers.{2 * layer + (kind == 'lambda_2')}.{ALPHAS[kind]}"
    if kind == "self_attn":
        return f"layers.{2 * layer}.mixer{rest.replace('.gate_proj.', '.g_proj.')}"
    return f"layers.{2 * layer + 1}.mixer{rest}"


CONFIG, MODULE = DoryConfig, Dory
