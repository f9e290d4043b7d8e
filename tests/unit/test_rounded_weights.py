"""Weights whose integers were chosen beforehand are stored as they are."""

import numpy as np
import onnx_ir as ir
import pytest

from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.integer_weights.blocks import quantize_blocks
from loopedge.graph.integer_weights.channels import quantize_weight, store_int8
from loopedge.graph.integer_weights.rounded_weights import Channels

ROWS = np.random.default_rng(0).standard_normal((6, 32)).astype(np.float32)


def stored() -> ir.Value:
    weight = ir.Value(
        name="w",
        const_value=ir.tensor(np.ascontiguousarray(ROWS.T), name="w"),
        shape=ir.Shape((32, 6)),
    )
    weight.type = ir.TensorType(ir.DataType.FLOAT)
    ir.Graph([], [], nodes=[], initializers=[weight], opset_imports={"": 23})
    return weight


def test_blocks_are_stored_as_chosen() -> None:
    chosen = quantize_blocks(ROWS + 1, bits=4, block_size=16)
    weight = stored()
    BlockWeights(4, rounded={"w": chosen}).store_weight(weight)
    assert weight.const_value is not None
    np.testing.assert_array_equal(weight.const_value.numpy(), chosen.values)


def test_blocks_of_other_bits_are_left_to_those() -> None:
    weight = stored()
    BlockWeights(8, rounded={"w": quantize_blocks(ROWS + 1, bits=4, block_size=16)}).store_weight(
        weight
    )
    assert weight.const_value is not None
    expected = quantize_blocks(ROWS, bits=8, block_size=32)
    np.testing.assert_array_equal(weight.const_value.numpy(), expected.values)


def test_channels_are_stored_as_chosen() -> None:
    values, scales = quantize_weight(ROWS + 1, axis=0)
    weight = stored()
    found = store_int8(weight, rounded={"w": Channels(values, scales)})
    assert weight.const_value is not None
    assert found.const_value is not None
    np.testing.assert_array_equal(weight.const_value.numpy(), values.T)
    np.testing.assert_array_equal(found.const_value.numpy(), scales)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="6 x 16"):
        BlockWeights(
            4, rounded={"w": quantize_blocks(ROWS[:, :16], bits=4, block_size=16)}
        ).store_weight(stored())
