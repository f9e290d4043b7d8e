"""Take over the weights of the paper's published module (``TMLT``, github.com/kevin671/tmlt)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer

__all__ = ["from_tmlt", "map_tmlt_state_dict"]

RENAMED = {
    "transformer.wte.weight": "embedding.weight",
    "transformer.wpe.weight": "position.weight",
    "transformer.ln_f.weight": "norm.weight",
    "timestep_embedder.mlp.0": "timestep.first",
    "timestep_embedder.mlp.2": "timestep.second",
    "adaLN_modulation.1": "timestep.last",
    "transformer.attn.c_proj": "core_layers.0.attention.o",
    "transformer.mlp.c_fc": "core_layers.0.mlp.up",
    "transformer.mlp.c_proj": "core_layers.0.mlp.down",
}
MERGED_QKV = "transformer.attn.c_attn."


def map_tmlt_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published TMLT checkpoint to those of `LoopedTransformer`.

    The merged projection ``c_attn`` (3 d, d) is split into q, k and v; ``lm_head.weight`` is the
    tied embedding and is dropped; a ``torch.compile`` prefix ``_orig_mod.`` is stripped.

    Args:
        published: ``state_dict`` of the module, any dtype.

    Returns:
        A float32 state dict for ``LoopedConfig(timestep="sinusoidal", layers=1, ...)``.

    Raises:
        InputError: A tensor has no counterpart.
    """
    mapped: dict[str, Tensor] = {}
    for raw_name, value in published.items():
        name = raw_name.removeprefix("_orig_mod.")
        if name == "lm_head.weight":
            continue
        if name.startswith(MERGED_QKV):
            suffix = name.removeprefix(MERGED_QKV)
            for part, piece in zip("qkv", value.chunk(3, dim=0), strict=True):
                mapped[f"core_layers.0.attention.{part}.{suffix}"] = piece.float()
            continue
        for old, new in RENAMED.items():
            if name == old or name.startswith(f"{old}."):
                mapped[new + name.removeprefix(old)] = value.float()
                break
        else:
            raise InputError(f"tensor {raw_name} has no counterpart in LoopedTransformer")
    return mapped


def from_tmlt(
    published: Mapping[str, Tensor], *, heads: int, loops: int, **overrides: Any
) -> LoopedTransformer:
    """Build a `LoopedTransformer` that computes what the published TMLT module computes.

    Args:
        published: ``state_dict`` of the module.
        heads: Its ``n_head``; not recoverable from the weights.
        loops: Its ``n_loop``.
        overrides: Further `LoopedConfig` fields, for example ``causal=False``.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: A tensor is missing or has no counterpart.
    """
    state = map_tmlt_state_dict(published)
    try:
        vocab_size, d_model = state["embedding.weight"].shape
        d_ff = state["core_layers.0.mlp.up.weight"].shape[0]
        max_length = state["position.weight"].shape[0]
    except KeyError as error:
        raise InputError(f"the checkpoint lacks {error.args[0]}") from error
    options = {
        "d_model": d_model,
        "heads": heads,
        "loops": loops,
        "vocab_size": vocab_size,
        "max_length": max_length,
        "mlp_ratio": d_ff / d_model,
        "bias": "core_layers.0.mlp.up.bias" in state,
        "timestep": "sinusoidal" if "timestep.first.weight" in state else "none",
    }
    model = LoopedTransformer(LoopedConfig(**(options | overrides)))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the checkpoint does not fit: {str(error).splitlines()[-1]}") from error
    return model.eval()
