"""Small models of every kind, with timestep tables that are not the identity."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from loopedge.exporter.module.example import example_inputs
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


ROUNDING = 1e-5
"""Of the largest value: how far two float32 kernels may be apart that compute the same.

A sum of n products in another order differs by at most n * 2^-24 of the sum of their magnitudes; n is up to 128
in these models, which makes 8e-6. A wrong weight or row makes 1e-2 and more.
"""
SEVEN_BITS: dict[str, Any] = {"reduce_range": True}
"""Options of int8 whose error is measured: the same integers on every processor.

Without VNNI ONNX Runtime adds two products u8 x s8 in 16 bits, which eight bits overflow: these random models
then lose 15 dB (38 on a processor with VNNI or without AVX, 23 with AVX2 alone). Seven bits never overflow.
"""
FLIPS = 0.25
"""Of the quantization noise: how far two graphs of the same integer weights may be apart.

Where their float parts round otherwise, a value close to the middle between two codes falls on the other
side. An error of `ROUNDING` of the range, 255 codes wide, moves 2 * 255 * 1e-5 = 0.5 % of the codes by a step,
while quantization moves each by 1 / sqrt(12) of a step: sqrt(12 * 0.005) = 0.25 of the noise. Ranges moved by
1e-5 make 0.08, the ranges of another iteration, which are within 4 % here, 0.56.
"""
FLIPS_DB = 10 * float(np.log10(1 + FLIPS**2))
"""What flips change of an SQNR at most: they are independent of the noise, so the powers add."""


def seven_bits(scheme: str) -> dict[str, Any]:
    """Return `SEVEN_BITS` for a scheme whose weights are not in blocks."""
    return {} if scheme.startswith("weight") else SEVEN_BITS


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


def noise_share(given: NDArray[Any], expected: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the distance of two quantized outputs as a share of the noise of ``expected``."""
    assert given.shape == expected.shape == exact.shape
    return float(np.linalg.norm(given - expected) / np.linalg.norm(expected - exact))


def relative_error(
    given: NDArray[Any], expected: NDArray[Any], kept: NDArray[Any] | None = None
) -> float:
    assert given.shape == expected.shape
    if kept is not None and expected.ndim == 3:
        given, expected = given[kept.astype(bool)], expected[kept.astype(bool)]
    return float(np.abs(given - expected).max() / np.abs(expected).max())
