"""HRM-Text of transformers: one iteration is one high cycle, with its low cycles inside."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopedge.errors import InputError
from loopedge.model.contract import LoopedModule, Tensors, as_tuple
from loopedge.model.folder import (
    CONFIG,
    CONTRACT_HINT,
    MOST_LAYERS,
    check_counts,
    load_transformers,
)
from loopedge.model.inner import inner_loop

__all__ = ["CLASSES", "HrmText", "adapt", "load"]

CLASSES = {"HrmTextForCausalLM": ("logits",), "HrmTextModel": ("last_hidden_state",)}
"""Classes by name, and the names of their outputs."""

ROPE_BY_LENGTH = {"dynamic", "longrope"}
"""Rotary variants whose frequencies change with the length of the input."""

EXAMPLE_LENGTH = 8


class HrmText(LoopedModule):
    """HRM-Text under the contract, without a cache; it holds the model's own modules.

    The state is (z_H, z_L), each float32 (batch, sequence, hidden); the context is the rotary
    tables and which keys a query may read. Inputs are ``input_ids`` and ``attention_mask``
    (1 = keep), int64 (batch, sequence), and where ``config.prefix_lm`` is set ``token_type_ids``:
    positions of type 1 read each other in both directions, zeros make the model causal.

    Args:
        model: The transformers module; it is put into evaluation mode, its attention set to sdpa.

    Raises:
        InputError: The class is not in `CLASSES`, or its rotary tables depend on the length.
    """

    model: Any
    lm_head: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        source: Any = model.eval()
        config = source.config
        kind = type(model).__name__
        if kind not in CLASSES:
            raise InputError(
                f"{kind} has no adapter, these have: {', '.join(CLASSES)}",
                hint=CONTRACT_HINT,
            )
        rope = config.rope_parameters["rope_type"]
        if rope in ROPE_BY_LENGTH:
            raise InputError(
                f"rotary positions of type {rope} change with the input's length, one table is stored",
                hint='"rope_type": "default" in config.json, or another type with fixed frequencies',
            )
        config._attn_implementation = "sdpa"
        whole = kind == "HrmTextForCausalLM"
        # The head first: of the names of a tied tensor torch.export keeps the last one.
        self.lm_head = source.lm_head if whole else None
        self.model = source.model if whole else source
        self.loops: int = config.H_cycles
        self.low_cycles: int = config.L_cycles
        self.max_length: int = config.max_position_embeddings
        self.vocab_size: int = config.vocab_size
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.input_names = names if config.prefix_lm else names[:2]
        self.output_names = CLASSES[kind]

    def prelude(self, *inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Return (z_H, z_L) and (cos, sin, readable)."""
        input_ids, attention_mask, *rest = inputs
        high = self.model.embed_tokens(input_ids) * self.model.embedding_scale
        low = self.model.z_L_init.expand_as(high).contiguous()
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        cos, sin = self.model.rotary_emb(high, position[None])  # (1, S, head_dim) each
        return (high, low), (cos, sin, _readable(attention_mask, *rest))

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Run the low cycles, then the high stack once."""
        high, low = state
        (low,) = as_tuple(inner_loop(self.low_cycle, self.low_cycles, low, (high, *context)))
        return self._stack(self.model.H_module, high + low, *context), low

    def low_cycle(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        """Refine z_L once; the context is z_H and the context of the core."""
        high, *rest = context
        assert isinstance(state, Tensor)
        return self._stack(self.model.L_module, state + high, *rest)

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        """Read z_H."""
        high: Tensor = state[0] if self.lm_head is None else self.lm_head(state[0])
        return high

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two rows, one of them padded on the right, with prefixes of two lengths."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, min(EXAMPLE_LENGTH, self.max_length))
        ids = torch.randint(self.vocab_size, shape, generator=generator)
        mask = torch.ones(shape, dtype=torch.int64)
        mask[1, (shape[1] + 1) // 2 :] = 0
        types = torch.zeros(shape, dtype=torch.int64)
        types[0, : shape[1] // 2] = 1
        types[1, : shape[1] // 4] = 1
        return (ids, mask, types)[: len(self.input_names)]

    @staticmethod
    def _stack(stack: Any, hidden: Tensor, cos: Tensor, sin: Tensor, readable: Tensor) -> Tensor:
        refined: Tensor = stack(hidden, attention_mask=readable, position_embeddings=(cos, sin))
        return refined


def adapt(model: nn.Module) -> HrmText:
    """Bring an HRM-Text under the contract.

    Raises:
        InputError: As `HrmText`.
    """
    return HrmText(model)


def load(folder: Path, config: dict[str, Any]) -> HrmText:
    """Build one from what ``save_pretrained`` wrote.

    Raises:
        InputError: As `HrmText` and `load_transformers`.
    """
    check_counts(config, {"num_hidden_layers": MOST_LAYERS}, folder / CONFIG)
    return HrmText(load_transformers(folder, config, CLASSES))


def _readable(attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
    """Return which keys a query may read, as bool (batch, 1, sequence, sequence).

    A query always reads itself, so that the rows of padded positions, which no kept position reads,
    stay finite.
    """
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    pattern = position[None, :] <= position[:, None]  # (S, S)
    if token_type_ids is not None:
        prefix = token_type_ids == 1
        pattern = pattern | (prefix[:, None, None, :] & prefix[:, None, :, None])  # (B, 1, S, S)
    pattern = pattern & attention_mask.to(torch.bool)[:, None, None, :]
    return pattern | (position[None, :] == position[:, None])
