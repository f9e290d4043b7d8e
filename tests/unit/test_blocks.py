"""Weights in blocks: rounding, packing, and what MatMulNBits makes of the bytes."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loopedge.graph.integer_weights.blocks import (
    BLOCK_SIZES,
    Blocks,
    best_block_size,
    quantize_blocks,
)

ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 70)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def unpacked(packed: Blocks) -> np.ndarray[Any, Any]:
    """Dequantize value by value, by the operator's specification."""
    outputs, blocks, _ = packed.values.shape
    half, found = 1 << (packed.bits - 1), np.zeros((outputs, packed.inputs), np.float32)
    for n in range(outputs):
        for k in range(packed.inputs):
            block, place = divmod(k, packed.block_size)
            share = 8 // packed.bits  # values in a byte, the first in the lowest bits
            byte = int(packed.values[n, block, place // share])
            level = byte // 2 ** (packed.bits * (place % share)) % 2**packed.bits
            found[n, k] = (level - half) * packed.scales[n, block]
    assert blocks * packed.block_size >= packed.inputs
    return found


def nbits(packed: Blocks, level: int) -> ort.InferenceSession:
    """Return x (B, S, in) -> x W^T in one MatMulNBits."""
    outputs, blocks, blob = packed.values.shape
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[B, S, {packed.inputs}] x, uint8[{outputs}, {blocks}, {blob}] w,
           float[{outputs}, {blocks}] s) => (float[B, S, {outputs}] y) {{
          y = com.microsoft.MatMulNBits <K = {packed.inputs}, N = {outputs}, bits = {packed.bits},
            block_size = {packed.block_size}, accuracy_level = {level}> (x, w, s)
        }}"""
    )
    for index, array in ((2, packed.scales), (1, packed.values)):
        value = model.graph.inputs.pop(index)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


@pytest.mark.parametrize("inputs", [1, 32, 100, 129])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_onnxruntime_reads_the_bytes_as_they_were_written(
    bits: int, block_size: int, inputs: int
) -> None:
    generator = np.random.default_rng(inputs)
    rows = generator.normal(size=(24, inputs)).astype(np.float32)
    packed = quantize_blocks(rows, bits=bits, block_size=block_size)
    assert packed.block_size == block_size
    stored = unpacked(packed)
    assert np.array_equal(packed.floats(), stored)
    x = generator.normal(size=(2, 5, inputs)).astype(np.float32)
    exact = x @ stored.T
    given = nbits(packed, level=0).run(None, {"x": x})[0]
    assert np.allclose(given, exact, atol=1e-5 * np.abs(exact).max())
    # Level 4 rounds x block by block as well.
    rounded = nbits(packed, level=4).run(None, {"x": x})[0]
    assert np.abs(rounded - exact).max() < 0.03 * np.abs(exact).max()


@given(ROWS, st.sampled_from(BLOCK_SIZES))
def test_eight_bits_are_off_by_at_most_half_a_scale(
    rows: np.ndarray[Any, Any], block_size: int
) -> None:
    packed = quantize_blocks(rows, bits=8, block_size=block_size)
    scales = np.abs(np.repeat(packed.scales, block_size, axis=1)[:, : rows.shape[1]])
    error = np.abs(packed.floats() - rows)
    # The largest value of the other sign has one level less: a whole scale.
    allowed = np.where(np.abs(rows) > 127.4 * scales, 1.0, 0.5) * scales
    assert (error <= allowed + 1e-5 * np.abs(rows) + 1e-30).all()


@given(ROWS, st.sampled_from([4, 2]))
def test_few_bits_are_finite_and_zero_stays_zero(rows: np.ndarray[Any, Any], bits: int) -> None:
    packed = quantize_blocks(rows, bits=bits, block_size=16)
    assert np.isfinite(packed.scales).all()
    assert (packed.floats()[rows == 0] == 0).all()
    assert np.square(packed.floats() - rows).sum() <= np.square(rows).sum() + 1e-6


@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_the_search_lessens_the_error_of_four_bits(block_size: int) -> None:
    rows = np.random.default_rng(0).standard_t(4, size=(64, 256)).astype(np.float32)
    searched = quantize_blocks(rows, bits=4, block_size=block_size).floats()
    blocks = rows.reshape(64, -1, block_size)
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    plain = (np.rint(blocks / scales) * scales).reshape(rows.shape)
    assert np.square(searched - rows).sum() < 0.8 * np.square(plain - rows).sum()


def test_blocks_of_zeros_and_of_denormals() -> None:
    rows = np.zeros((2, 32), np.float32)
    rows[0, :16] = 1e-42
    for bits in (8, 4, 2):
        packed = quantize_blocks(rows, bits=bits, block_size=16)
        assert (packed.floats() == 0).all()
        # A large scale would show what the kernel leaves when it takes the middle away in float.
        assert (packed.scales < 1e-30).all()


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantize_blocks(np.array([[1.0, np.inf]], np.float32), bits=8, block_size=16)


@pytest.mark.parametrize(
    ("inputs", "largest", "expected"),
    [(768, 128, 128), (768, 32, 32), (32, 128, 32), (100, 128, 128), (40, 128, 16), (2, 128, 16)],
)
def test_the_block_size_that_stores_a_row_in_the_fewest_bytes(
    inputs: int, largest: int, expected: int
) -> None:
    assert best_block_size(inputs, bits=8, largest=largest) == expected


@pytest.mark.parametrize(
    ("inputs", "largest", "expected"), [(768, 128, 128), (16, 32, 32), (40, 128, 64), (33, 16, 32)]
)
def test_two_bits_stand_in_blocks_that_have_a_fast_kernel(
    inputs: int, largest: int, expected: int
) -> None:
    assert best_block_size(inputs, bits=2, largest=largest) == expected


def test_four_values_of_two_bits_share_a_byte() -> None:
    rows = np.zeros((1, 32), np.float32)
    rows[0, :5] = -2, -1, 0, 1, 1
    packed = quantize_blocks(rows, bits=2, block_size=32)
    assert packed.values.shape == (1, 1, 8)
    assert np.array_equal(packed.floats(), rows)
    assert packed.values[0, 0, 0] == 0 + 1 * 4 + 2 * 16 + 3 * 64
    assert packed.values[0, 0, 1] == 3 + 2 * 4 + 2 * 16 + 2 * 64
