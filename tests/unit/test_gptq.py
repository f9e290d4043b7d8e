"""Rounding by what a linear reads: against a slow form that deletes one column of the inverse after another."""

from typing import Any

import numpy as np
import pytest

from loopedge.graph.integer_weights.blocks import Blocks, quantize_blocks
from loopedge.graph.integer_weights.gptq import Gptq, fitted_scales

Array = np.ndarray[Any, Any]


def case(inputs: int, outputs: int = 12, rows: int = 400) -> tuple[Array, Array]:
    """Return a weight (outputs, inputs) and the Hessian of inputs that hang together, as those of a model do."""
    generator = np.random.default_rng(inputs)
    mixed = generator.normal(size=(inputs, inputs)) * np.exp(-np.arange(inputs) / inputs * 3)
    read = generator.normal(size=(rows, inputs)) @ mixed.T
    weight = generator.normal(size=(outputs, inputs)).astype(np.float32)
    return weight, (read.T @ read).astype(np.float32)


def objective(weight: Array, packed: Blocks, hessian: Array) -> float:
    error = weight.astype(np.float64) - packed.floats()
    return float(np.sum(error @ hessian * error))


def signed_scale(values: Array, half: int) -> Any:
    """Return the scale that gives the value of the largest magnitude the level -half, row by row."""
    widest = values[np.arange(len(values)), np.abs(values).argmax(axis=1)]
    return widest / -half


def slow(
    weight: Array, hessian: Array, *, bits: int, size: int, damping: float, ordered: bool
) -> tuple[Array, Array]:
    """Round column by column, as Optimal Brain Quantization does; return levels and scales."""
    left, half = weight.astype(np.float64), 1 << (bits - 1)
    inputs = left.shape[1]
    inverse = np.linalg.inv(
        hessian.astype(np.float64) + damping * np.diagonal(hessian).mean() * np.eye(inputs)
    )
    blocks = [slice(start, start + size) for start in range(0, inputs, size)]
    scales = np.stack([signed_scale(left[:, block], half) for block in blocks], axis=1)
    order = np.argsort(-np.diagonal(hessian)) if ordered else np.arange(inputs)
    levels = np.zeros_like(left)
    for column in order:
        if not ordered and column % size == 0:
            scales[:, column // size] = signed_scale(left[:, blocks[column // size]], half)
        scale = scales[:, column // size]
        levels[:, column] = np.clip(np.rint(left[:, column] / scale), -half, half - 1)
        error = (left[:, column] - levels[:, column] * scale) / inverse[column, column]
        left -= np.outer(error, inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column] = inverse[:, column] = 0.0
    return levels, scales


def levels_of(packed: Blocks) -> Any:
    scales = np.repeat(packed.scales, packed.block_size, axis=1)[:, : packed.inputs]
    return np.rint(packed.floats() / scales)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("inputs", "size"), [(64, 16), (150, 32), (200, 128), (300, 256)])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_columns_are_rounded_as_one_by_one(
    bits: int, inputs: int, size: int, ordered: bool
) -> None:
    weight, hessian = case(inputs)
    packed = Gptq.of(hessian, damping=0.05, act_order=ordered).round(
        weight, bits=bits, block_size=size
    )
    assert (packed.bits, packed.block_size, packed.inputs) == (bits, size, inputs)
    levels, scales = slow(weight, hessian, bits=bits, size=size, damping=0.05, ordered=ordered)
    # A sum that is rounded otherwise may move a level to its neighbour, and what follows with it.
    assert (levels_of(packed) == levels).mean() > 0.95
    expected = (levels * np.repeat(scales, size, axis=1)[:, :inputs]).astype(np.float32)
    error = weight - expected
    slow_objective = float(np.sum(error.astype(np.float64) @ hessian * error))
    assert objective(weight, packed, hessian) == pytest.approx(slow_objective, rel=0.05)


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_error_of_the_products_is_far_below_that_of_rounding_to_nearest(
    bits: int, ordered: bool, fits: bool
) -> None:
    weight, hessian = case(96)
    nearest = objective(weight, quantize_blocks(weight, bits=bits, block_size=32), hessian)
    found = Gptq.of(hessian, act_order=ordered).round(weight, bits=bits, block_size=32, fits=fits)
    assert objective(weight, found, hessian) < 0.6 * nearest


def test_fitted_scales_are_those_of_least_squares() -> None:
    """Against numpy's own least squares on the inputs themselves."""
    generator = np.random.default_rng(0)
    read = generator.normal(size=(200, 40)).astype(np.float32)
    weight = generator.normal(size=(3, 40)).astype(np.float32)
    packed = quantize_blocks(weight, bits=4, block_size=16)
    steps = np.zeros((3, 48), np.float32)
    steps[:, :40] = levels_of(packed)
    found = fitted_scales(weight, steps.reshape(3, 3, 16), packed.scales, read.T @ read)
    for row in range(3):
        by_block = np.stack(
            [
                read[:, b * 16 : (b + 1) * 16] @ steps[row, b * 16 : (b + 1) * 16][: 40 - b * 16]
                for b in range(3)
            ],
            axis=1,
        )
        expected = np.linalg.lstsq(by_block, read @ weight[row], rcond=None)[0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-3)


def test_inputs_that_are_always_zero_are_rounded_to_nearest() -> None:
    weight, hessian = case(64)
    dead = [3, 17, 40]
    hessian[dead] = hessian[:, dead] = 0.0
    for ordered in (False, True):
        packed = Gptq.of(hessian, act_order=ordered).round(weight, bits=4, block_size=32)
        scales = np.abs(np.repeat(packed.scales, 32, axis=1))
        # The largest of the other sign has one level less.
        assert (np.abs(packed.floats() - weight)[:, dead] <= 1.01 * scales[:, dead]).all()
    nothing = Gptq.of(np.zeros((64, 64), np.float32)).round(weight, bits=4, block_size=32)
    assert (
        np.abs(nothing.floats() - weight) <= 1.01 * np.abs(np.repeat(nothing.scales, 32, 1))
    ).all()


def test_fewer_samples_than_inputs() -> None:
    weight, hessian = case(96, rows=10)
    nearest = objective(weight, quantize_blocks(weight, bits=4, block_size=32), hessian)
    for ordered in (False, True):
        found = Gptq.of(hessian, act_order=ordered).round(weight, bits=4, block_size=32, fits=True)
        assert np.isfinite(found.scales).all()
        assert objective(weight, found, hessian) < 0.3 * nearest


def test_a_weight_of_zeros_stays_one() -> None:
    _, hessian = case(40)
    for ordered in (False, True):
        found = Gptq.of(hessian, act_order=ordered).round(
            np.zeros((4, 40), np.float32), bits=4, block_size=16, fits=True
        )
        assert (found.floats() == 0).all()


def test_what_is_not_finite_is_refused() -> None:
    weight, hessian = case(32)
    with pytest.raises(ValueError, match="Hessian that is not finite"):
        Gptq.of(np.full_like(hessian, np.inf))
    weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="weight that is not finite"):
        Gptq.of(hessian).round(weight, bits=4, block_size=32)
