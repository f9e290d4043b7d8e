"""Small models of other packages with random weights, and their own forward as the reference."""

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script. is deprecated.*")
    # Not by import statements: mypy would follow them through the packages.
    transformers: Any = importlib.import_module("transformers")
    recursive: Any = importlib.import_module("tiny_recursive_model")
    x_transformers: Any = importlib.import_module("x_transformers")

ALBERT = {
    "hidden_size": 32,
    "embedding_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 24,
    "num_labels": 2,
}
HRM_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "head_dim": 8,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,  # an embedding_scale of 2
    "L_cycles": 2,
}
RECURSIVE = {"dim": 16, "num_tokens": 20, "num_latent_refinements": 2}
PADDINGS = ("left", "right", "none")


@dataclass(frozen=True)
class Sizes:
    batch: int
    sequence: int


def make_albert(kind: str, *, loops: int = 3, **changes: Any) -> Any:
    config = transformers.AlbertConfig(**ALBERT, num_hidden_layers=loops, **changes)
    return seeded(lambda: getattr(transformers, kind)(config))


def make_hrm_text(kind: str = "HrmTextForCausalLM", *, loops: int = 2, **changes: Any) -> Any:
    config = transformers.HrmTextConfig(**{**HRM_TEXT, "H_cycles": loops, **changes})
    return seeded(lambda: getattr(transformers, kind)(config))


def make_recursive(network: str, *, loops: int = 3, registers: int = 0) -> Any:
    """Build a tiny recursive model; an MLPMixer1D takes 9 tokens after the registers."""

    def build() -> Any:
        settings = {"num_refinement_blocks": loops, "num_register_tokens": registers}
        return recursive.TinyRecursiveModel(
            network=make_network(network, registers), **RECURSIVE, **settings
        )

    return seeded(build)


def make_network(kind: str, registers: int = 0) -> nn.Module:
    if kind == "MLPMixer1D":
        mixer: nn.Module = recursive.MLPMixer1D(dim=16, depth=1, seq_len=9 + registers)
        return mixer
    sizes = {"dim": 16, "depth": 1, "heads": 2, "attn_dim_head": 8, "rotary_pos_emb": False}
    layers: nn.Module = getattr(x_transformers, kind)(**sizes)
    return layers


def seeded(build: Any) -> Any:
    """Build a model with weights so large that every iteration moves the state."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith(("bias", "z_L_init", "init_embed")):
                parameter.normal_(0, 0.2)
            elif name.endswith(("LayerNorm.weight", "norm.weight")):
                parameter.uniform_(0.5, 1.5)
    return model


def make_tensors(names: tuple[str, ...], sizes: Sizes, *, tokens: int, padding: str) -> Any:
    """Return the inputs by name; rows are padded by different numbers of positions."""
    generator = torch.Generator().manual_seed(sizes.batch * 100 + sizes.sequence)
    shape = (sizes.batch, sizes.sequence)
    mask = torch.ones(shape, dtype=torch.int64)
    for row in range(sizes.batch):
        count = min(row + 1, sizes.sequence - 1)
        if padding == "left":
            mask[row, :count] = 0
        elif padding == "right":
            mask[row, sizes.sequence - count :] = 0
    everything = {
        "input_ids": torch.randint(tokens, shape, generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(2, shape, generator=generator),
    }
    return {name: everything[name] for name in names}


def reference(model: Any, tensors: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Run the package's own forward and return its outputs by the names of the adapter."""
    with torch.no_grad():
        if type(model).__name__ == "TinyRecursiveModel":
            _, _, logits, halt = model(tensors["input_ids"], *model.get_initial())
            return {"logits": logits.numpy(), "halt_probability": halt.numpy()}
        options = {"use_cache": False} if model.config.model_type == "hrm_text" else {}
        given = model(**tensors, **options)
    return {name: value.numpy() for name, value in given.items() if isinstance(value, Tensor)}


def relative_error(
    given: NDArray[Any], expected: NDArray[Any], mask: Tensor | None = None
) -> float:
    """Return max |given - expected| / max |expected|, at kept positions where there are any."""
    assert given.shape == expected.shape
    if mask is not None and expected.shape[:2] == tuple(mask.shape):
        kept = mask.numpy().astype(bool)
        given, expected = given[kept], expected[kept]
    return float(np.abs(given - expected).max() / np.abs(expected).max())
