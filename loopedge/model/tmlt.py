"""Take over the weights of published timestep-modulated looped transformers (TMLT).

Two layouts are published, that of the paper (github.com/kevin671/tmlt) and that of LoopFormer's
baseline (github.com/armenjeddi/loopformer). Both compute what `LoopedTransformer` computes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.model.transformer import LoopedTransformer

__all__ = ["from_tmlt", "map_tmlt_state_dict"]

PREFIXES = ("_orig_mod.", "module.", "model.", "gpt.")
"""What torch.compile, DistributedDataParallel and the published loaders put before a name."""

HEAD, EMBEDDING = "lm_head.weight", "embedding.weight"

RENAMED = {
    r"transformer\.wte\.weight": EMBEDDING,
    r"transformer\.wpe\.weight": "position.weight",
    r"transformer\.(?:ln_f|norm_f)\.weight": "norm.weight",
    r"time(?:step)?_embedder\.mlp\.0\.(\w+)": r"timestep.first.\1",
    r"time(?:step)?_embedder\.mlp\.2\.(\w+)": r"timestep.second.\1",
}
"""Outside the block; each pattern matches a whole name."""

IN_BLOCK = {
    r"attn\.c_attn\.(\w+)": r"attention.qkv.\1",
    r"attn\.([qkv])\.(\w+)": r"attention.\1.\2",
    r"attn\.c_proj\.(\w+)": r"attention.o.\1",
    r"mlp\.c_fc\.(\w+)": r"mlp.up.\1",
    r"mlp\.c_proj\.(\w+)": r"mlp.down.\1",
}
BLOCK = re.compile(r"transformer\.(?:h\.blocks\.(\d+)\.)?(.+)")
"""The paper's module has one block, without a number; LoopFormer's has several."""
MODULATION = re.compile(r"(?:transformer\.h\.blocks\.(\d+)\.)?adaLN_modulation\.1\.(\w+)")

OTHER_ORDERS = (
    (
        re.compile(r"dt_embedder\..+"),
        "it is LoopFormer's own module, whose blocks read the step size beside the time",
        "export a module of your own, as examples/models/loopformer_like.py does",
    ),
    (
        re.compile(r"transformer\.h\.(?:blocks\.)?\d+\.(?:norm|ln)_[12]\.\w+"),
        "its blocks have learned norms, so it is not a TMLT module",
        "export it as a module of your own: docs/bring_your_own.md",
    ),
)
"""Names that only occur where another order of operations stands behind them."""


def map_tmlt_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published TMLT checkpoint to those of `LoopedTransformer`.

    A merged projection ``c_attn`` (3 d, d) is split into q, k and v; separate ones are taken as they
    are. The modulations of several blocks, each (4 d, d), become one layer. ``lm_head.weight`` is the
    tied embedding.

    Args:
        published: ``state_dict`` of the module, any dtype.

    Returns:
        A float32 state dict for ``LoopedConfig(timestep="sinusoidal", layers=..., ...)``.

    Raises:
        InputError: A tensor has no counterpart, or another order of operations stands behind it.
    """
    mapped: dict[str, Tensor] = {}
    modulations: dict[str, dict[int, Tensor]] = {}
    head: Tensor | None = None
    for raw_name, raw_value in published.items():
        if not isinstance(raw_value, Tensor):
            raise InputError(
                f"{raw_name} is not a tensor", hint='pass the state dict: checkpoint["model"]'
            )
        name, value = _bare(raw_name), raw_value.float()
        modulation = MODULATION.fullmatch(name)
        if name == HEAD:
            head = value
        elif modulation:
            modulations.setdefault(modulation[2], {})[int(modulation[1] or 0)] = value
        else:
            mapped.update(_renamed(name, raw_name, value))
    for kind, values in modulations.items():
        mapped[f"timestep.last.{kind}"] = torch.cat([values[layer] for layer in sorted(values)])
    _tie(mapped, head)
    return mapped


def from_tmlt(
    published: Mapping[str, Tensor],
    *,
    heads: int,
    loops: int,
    plain_norms: bool = False,
    **overrides: Any,
) -> LoopedTransformer:
    """Build a `LoopedTransformer` that computes what the published TMLT module computes.

    Args:
        published: ``state_dict`` of the module.
        heads: Its ``n_head``; the weights do not say it.
        loops: Its ``n_loop`` or ``steps``.
        plain_norms: Take a checkpoint without a timestep encoding, too: you know that its forward
            normalises what attention and MLP read. The weights do not say it, for these norms have
            none. The published ``LoopedGPT`` with separate q, k and v does not, and is refused.
        overrides: Further `LoopedConfig` fields, for example ``causal=False``.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: A tensor is missing or has no counterpart, or the module computes something else.
    """
    _check_order({_bare(name) for name in published}, plain_norms=plain_norms)
    state = map_tmlt_state_dict(published)
    try:
        vocab_size, d_model = state[EMBEDDING].shape
        d_ff = state["core_layers.0.mlp.up.weight"].shape[0]
        max_length = state["position.weight"].shape[0]
    except KeyError as error:
        raise InputError(f"the checkpoint lacks {error.args[0]}") from error
    options = {
        "d_model": d_model,
        "heads": heads,
        "layers": len({name.split(".")[1] for name in state if name.startswith("core_layers.")}),
        "loops": loops,
        "vocab_size": vocab_size,
        "max_length": max_length,
        "mlp_ratio": d_ff / d_model,
        "bias": "core_layers.0.mlp.up.bias" in state,
        "timestep": "none" if plain_norms else "sinusoidal",
    }
    model = LoopedTransformer(LoopedConfig(**(options | overrides)))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the checkpoint does not fit: {str(error).splitlines()[-1]}") from error
    return model.eval()


def _bare(name: str) -> str:
    """Return a name without the prefixes that wrappers put before it."""
    while prefix := next((part for part in PREFIXES if name.startswith(part)), None):
        name = name.removeprefix(prefix)
    return name


def _renamed(name: str, raw_name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what a tensor is called here: one entry, or three for a merged projection."""
    for pattern, new in RENAMED.items():
        if match := re.fullmatch(pattern, name):
            yield match.expand(new), value
            return
    block = BLOCK.fullmatch(name)
    for pattern, new in IN_BLOCK.items():
        if block and (match := re.fullmatch(pattern, block[2])):
            place = f"core_layers.{int(block[1] or 0)}.{match.expand(new)}"
            if ".qkv." not in place:
                yield place, value
                return
            for part, piece in zip("qkv", value.chunk(3, dim=0), strict=True):
                yield place.replace(".qkv.", f".{part}."), piece
            return
    for pattern_of_names, reason, hint in OTHER_ORDERS:
        if pattern_of_names.fullmatch(name):
            raise InputError(f"tensor {raw_name} cannot be taken over: {reason}", hint=hint)
    raise InputError(f"tensor {raw_name} has no counterpart in LoopedTransformer")


def _check_order(names: set[str], *, plain_norms: bool) -> None:
    """Refuse the published plain modules whose order of operations is another one."""
    timed = any(MODULATION.fullmatch(name) for name in names)
    if timed and plain_norms:
        raise InputError("the checkpoint has a timestep encoding", hint="leave out plain_norms")
    if timed or not any(".attn." in name for name in names):
        return
    if any(re.fullmatch(r"transformer\.attn\.[qkv]\.weight", name) for name in names):
        raise InputError(
            "the checkpoint is a plain LoopedGPT with separate q, k and v: its values and its MLP read "
            "states without a norm, which LoopedTransformer does not compute",
            hint="export it as a module of your own: docs/bring_your_own.md",
        )
    if not plain_norms:
        raise InputError(
            "the checkpoint has no timestep encoding, and its weights do not say whether attention and "
            "MLP read normalised states",
            hint="from_tmlt(..., plain_norms=True) if its forward normalises both",
        )


def _tie(mapped: dict[str, Tensor], head: Tensor | None) -> None:
    """Make head and embedding one tensor: a checkpoint may hold both or either."""
    if head is None:
        return
    if not torch.equal(mapped.setdefault(EMBEDDING, head), head):
        raise InputError(
            f"{HEAD} differs from transformer.wte.weight: the published modules tie them",
            hint="export it as a module of your own: docs/bring_your_own.md",
        )
