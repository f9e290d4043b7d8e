"""Quantize weight matrices: s8, symmetric, one scale per output channel, stored once."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer
from loopedge.graph.integer_weights.rounded_weights import Channels, RoundedWeights
from loopedge.graph.weights import RANGE_PREFIX

__all__ = [
    "INT8_LIMIT",
    "REDUCED_LIMIT",
    "as_unsigned",
    "quantize_tensor",
    "quantize_weight",
    "store_int8",
]

INT8_LIMIT = 127
"""Largest magnitude; -128 stays unused, so that the range is symmetric."""

ZERO_OF_UNSIGNED = 128
"""What stands for zero where a symmetric weight is stored as u8."""

REDUCED_LIMIT = 63
"""Seven bits: without VNNI, u8 x s8 products are added in pairs of 16 bits, which eight overflow."""


def quantize_weight(
    weight: npt.NDArray[np.floating[Any]], *, axis: int = 1, limit: int = INT8_LIMIT
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round a weight to eight bits with one scale per channel.

    Args:
        weight: float (in, out).
        axis: The channel axis: 1 for [in, out].
        limit: Largest magnitude of a quantized value.

    Returns:
        int8 values of the same shape, and float32 (channels,) scales with
        ``weight ~ values * scales``; each value is off by at most half a scale. A channel of
        zeros gets scale 1.

    Raises:
        ValueError: A value is not finite.
    """
    if not np.isfinite(weight).all():
        raise ValueError("a weight that is not finite cannot be quantized")
    other = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=other, initial=0.0).astype(np.float64)
    # A denormal scale has too few bits to be half a scale off at most.
    usable = np.maximum(largest / limit, np.finfo(np.float32).tiny)
    scales = np.where(largest > 0, usable, 1.0).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.rint(weight / scales.reshape(shape)).clip(-limit, limit)
    return values.astype(np.int8), scales


def quantize_tensor(
    weight: npt.NDArray[np.floating[Any]], *, limit: int = INT8_LIMIT
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round a weight as `quantize_weight`, with one scale for all of it: float32 ()."""
    values, scales = quantize_weight(weight.reshape(-1, 1), limit=limit)
    return values.reshape(weight.shape), scales.reshape(())


def store_int8(
    weight: ir.Value,
    limit: int = INT8_LIMIT,
    rounded: RoundedWeights | None = None,
    *,
    per_channel: bool = True,
) -> ir.Value:
    """Replace a stored weight [in, out] by s8 values under its name.

    Args:
        weight: The weight.
        limit: Largest magnitude of a stored value.
        rounded: Weights whose values were chosen already; the others are rounded to nearest.
        per_channel: A scale per output channel; else one for all.

    Returns:
        Its scales, an initializer ``<name>.scale``, or of another name where that is taken.
    """
    graph, name, tensor = weight.graph, weight.name or "", weight.const_value
    if graph is None or tensor is None:
        raise ValueError(f"{name} is not a stored weight")
    chosen = (rounded or {}).get(name)
    if isinstance(chosen, Channels):
        values, scales = chosen.of_shape(tuple(tensor.shape.numpy()[::-1])).values.T, chosen.scales
    elif per_channel:
        values, scales = quantize_weight(tensor.numpy(), limit=limit)
    else:
        values, scales = quantize_tensor(tensor.numpy(), limit=limit)
    weight.const_value = ir.tensor(np.ascontiguousarray(values), name=name)
    weight.type = ir.TensorType(ir.DataType.INT8)
    return add_initializer(graph, f"{name}.scale", scales)


def as_unsigned(weight: ir.Value, graph: ir.Graph) -> ir.Value:
    """Store a weight that is s8 as u8, in place: every value 128 more.

    Args:
        weight: As `store_int8` left it.
        graph: Holds it.

    Returns:
        Its zero point, u8 (), an initializer.
    """
    if weight.const_value is None:
        raise ValueError(f"{weight.name} is not a stored weight")
    values = weight.const_value.numpy().astype(np.int16) + ZERO_OF_UNSIGNED
    weight.const_value = ir.tensor(values.astype(np.uint8), name=weight.name)
    weight.type = ir.TensorType(ir.DataType.UINT8)
    zero_point = np.array(ZERO_OF_UNSIGNED, np.uint8)
    return add_initializer(graph, f"{RANGE_PREFIX}{weight.name}.zero_point", zero_point)
