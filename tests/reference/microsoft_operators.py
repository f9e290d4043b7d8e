"""Operators of com.microsoft for `onnx.reference`, written from their specification, in plain NumPy.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md. What a file of loopedge does not use is
refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

__all__ = ["OPERATORS"]

Array = NDArray[Any]
DOMAIN = "com.microsoft"


class MatMulIntegerToFloat(OpRun):
    """(A - zero) @ (B - zero), exact, times the scale of A and those of B's columns, plus a bias."""

    op_domain = DOMAIN

    def _run(
        self,
        a: Array,
        b: Array,
        a_scale: Array,
        b_scale: Array,
        a_zero: Array | None = None,
        b_zero: Array | None = None,
        bias: Array | None = None,
    ) -> tuple[Array]:
        return (_integer_product(a, b, a_scale, b_scale, a_zero, b_zero, bias),)


class DynamicQuantizeMatMul(OpRun):
    """The same, with A rounded to u8 by its own range as DynamicQuantizeLinear does."""

    op_domain = DOMAIN

    def _run(
        self,
        a: Array,
        b: Array,
        b_scale: Array,
        b_zero: Array | None = None,
        bias: Array | None = None,
    ) -> tuple[Array]:
        low, high = np.float32(min(a.min(), 0)), np.float32(max(a.max(), 0))
        scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
        values = np.clip(np.rint(a / scale) + zero, 0, 255).astype(np.uint8)
        return (_integer_product(values, b, np.asarray(scale), b_scale, zero, b_zero, bias),)


class FusedMatMul(OpRun):
    """alpha * A @ B, each turned in its last two axes where it says so."""

    op_domain = DOMAIN

    def _run(
        self,
        a: Array,
        b: Array,
        alpha: float = 1.0,
        transA: int = 0,  # noqa: N803
        transB: int = 0,  # noqa: N803
        transBatchA: int = 0,  # noqa: N803
        transBatchB: int = 0,  # noqa: N803
    ) -> tuple[Array]:
        if transBatchA or transBatchB:
            raise NotImplementedError("a turned batch axis")
        left, right = (
            np.swapaxes(x, -1, -2) if turned else x for x, turned in ((a, transA), (b, transB))
        )
        return ((np.float32(alpha) * (left @ right)).astype(np.float32),)


class MatMulNBits(OpRun):
    """A @ W^T of a weight in blocks of integers; accuracy_level 4 rounds A's blocks to eight bits."""

    op_domain = DOMAIN

    def _run(
        self,
        a: Array,
        b: Array,
        scales: Array,
        zero_points: Array | None = None,
        g_idx: Array | None = None,
        bias: Array | None = None,
        K: int = 0,  # noqa: N803
        N: int = 0,  # noqa: N803
        accuracy_level: int = 0,
        bits: int = 4,
        block_size: int = 32,
        weight_prepacked: int = 0,
    ) -> tuple[Array]:
        if zero_points is not None or g_idx is not None or bias is not None or weight_prepacked:
            raise NotImplementedError("zero points, an order, a bias, packed weights")
        blocks = _unpacked(b, bits).astype(np.float32) - np.float32(2 ** (bits - 1))
        weight = (blocks * scales.reshape(N, -1, 1)).reshape(N, -1)[:, :K]
        rows = _rounded_blocks(a, block_size) if accuracy_level == 4 else a
        return ((rows @ weight.T).astype(np.float32),)


class GatherBlockQuantized(OpRun):
    """Rows of a table whose last axis is quantized in blocks."""

    op_domain = DOMAIN

    def _run(
        self,
        data: Array,
        indices: Array,
        scales: Array,
        zero_points: Array | None = None,
        bits: int = 4,
        block_size: int = 128,
        gather_axis: int = 0,
        quantize_axis: int = 1,
    ) -> tuple[Array]:
        if zero_points is not None or gather_axis != 0 or quantize_axis != data.ndim - 1:
            raise NotImplementedError("zero points, other axes")
        values = _unpacked(data, bits).astype(np.float32) - np.float32(2 ** (bits - 1))
        spread = np.repeat(scales, block_size, axis=-1)[..., : values.shape[-1]]
        return ((values * spread)[indices].astype(np.float32),)


def _integer_product(
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero: Array | None,
    b_zero: Array | None,
    bias: Array | None,
) -> Array:
    left, right = a.astype(np.int32), b.astype(np.int32)
    left = left if a_zero is None else left - a_zero.astype(np.int32)
    right = right if b_zero is None else right - b_zero.astype(np.int32)
    product = (left @ right).astype(np.float32) * (a_scale.astype(np.float32) * b_scale)
    return (product if bias is None else product + bias).astype(np.float32)


def _unpacked(values: Array, bits: int) -> Array:
    """Return the codes of the last axis, of which a byte holds two in four bits, the lower half first."""
    if bits == 8:
        return values
    return np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], -1)


def _rounded_blocks(a: Array, size: int) -> Array:
    """Return A with each block of its last axis rounded to -127 .. 127 of its largest magnitude."""
    width = a.shape[-1]
    filled = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, -width % size)])
    blocks = filled.reshape(*a.shape[:-1], -1, size)
    step = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    rounded: Array = np.rint(blocks / np.where(step == 0, np.float32(1), step)) * step
    return rounded.reshape(filled.shape)[..., :width]


OPERATORS = [
    MatMulIntegerToFloat,
    DynamicQuantizeMatMul,
    FusedMatMul,
    MatMulNBits,
    GatherBlockQuantized,
]
