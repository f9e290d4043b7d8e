"""Small models of every kind, with timestep tables that are not the identity."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from loopedge.exporter.example import example_inputs
from loopedge.model.config import LoopedConfig
from loopedge.model.contract import as_tuple
from loopedge.model.transformer import LoopedTransformer

KINDS: dict[str, dict[str, Any]] = {
    "tokens": {"vocab_size": 50},
    "padded": {"vocab_size": 50, "padding": True, "timestep": "learned"},
    "bidirectional": {
        "vocab_size": 50,
        "padding": True,
        "causal": False,
        "positions": "rotary",
    },
    "series": {
        "features": 2,
        "outputs": 1,
        "horizon": 5,
        "read": "last",
        "bias": True,
        "layers": 2,
        "timestep": "constant",
    },
    "plain": {"vocab_size": 50, "timestep": "none", "positions": "none", "tied_head": False},
}


def slow_but(*quick: str) -> list[Any]:
    """Return the kinds as parameters: all but ``quick`` ones are left out of make test-fast."""
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@dataclass(frozen=True)
class Sizes:
    batch: int
    sequence: int
    loops: int | None = None


def make_model(kind: str, *, loops: int = 3, **changes: Any) -> LoopedTransformer:
    torch.manual_seed(0)
    settings = {"d_model": 32, "heads": 4, "loops": loops, "max_length": 16, **KINDS[kind]}
    model = LoopedTransformer(LoopedConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("timestep.last", "timestep.rows")):
                parameter.normal_(0.3, 0.3)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    if model.config.features is not None:
        model.set_scaling(
            torch.tensor([3.0, -1.0]),
            torch.tensor([2.0, 0.5]),
            torch.tensor([3.0]),
            torch.tensor([2.0]),
        )
    return model


def make_inputs(
    model: LoopedTransformer, sizes: Sizes, *, seed: int = 7
) -> tuple[tuple[Tensor, ...], dict[str, NDArray[Any]]]:
    """Return the inputs for PyTorch and, by name, for ONNX Runtime."""
    tensors = example_inputs(
        model,
        batch=sizes.batch,
        sequence=sizes.sequence,
        padding=model.config.padding,
        seed=seed,
    )
    return tensors, dict(
        zip(model.input_names, (tensor.numpy() for tensor in tensors), strict=True)
    )


def torch_output(
    model: LoopedTransformer, tensors: tuple[Tensor, ...], loops: int | None = None
) -> NDArray[Any]:
    with torch.no_grad():
        return as_tuple(model(*tensors, loops=loops))[0].numpy()


def relative_error(
    given: NDArray[Any], expected: NDArray[Any], kept: NDArray[Any] | None = None
) -> float:
    assert given.shape == expected.shape
    if kept is not None and expected.ndim == 3:
        given, expected = given[kept.astype(bool)], expected[kept.astype(bool)]
    return float(np.abs(given - expected).max() / np.abs(expected).max())
