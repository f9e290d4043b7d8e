"""Move outlier channels of activations into the weights, where eight bits have room for them.

What a linear reads is divided by a factor per channel, its weight rows are multiplied by it: the product
stays the same (SmoothQuant, Xiao et al. 2023). In a looped model the division is free: the timestep
table already multiplies the norm, so its columns take the factors; what attention gives takes them from
the columns of the value projection. The factors are the same in every iteration, as the weights are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.names import loop_name, loop_value_name
from loopedge.graph.weights import Linear, linears
from loopedge.options import option

__all__ = [
    "SmoothingGroup",
    "apply_smoothing",
    "best_factors",
    "rescaled_products",
    "smoothable",
    "smoothing_factors",
]

Array = npt.NDArray[Any]

STRENGTHS = (0.0, 0.25, 0.5, 0.75)
"""Tried exponents of the activations' share; 0 leaves the model as it is."""


@dataclass(frozen=True, slots=True)
class SmoothingGroup:
    """The weights of linears that read one activation, and what can take the division.

    ``divided``: initializers, each with the axis whose entries are divided.
    """

    weights: list[ir.Value]
    divided: list[tuple[ir.Value, int]]


def smoothable(model: ir.Model) -> dict[str, SmoothingGroup]:
    """Find the groups of linears whose activation can be smoothed, by their first linear's name."""
    found: dict[ir.Value, list[Linear]] = {}
    for item in linears(model):
        source = item.node.inputs[0]
        if item.index == 1 and item.node.op_type == "MatMul" and source is not None:
            found.setdefault(source, []).append(item)
    groups: dict[str, SmoothingGroup] = {}
    for source, items in found.items():
        name = loop_name(items[0].node)
        weights = list(dict.fromkeys(item.weight for item in items))
        readers = {item.node for item in items}
        if name in groups or set(source.consumers()) != readers or source.is_graph_output():
            continue
        divided = _table_of(source) or _value_projection_of(source)
        # With grouped queries a value channel reaches several of what attention gives: no division.
        width = _array(weights[0]).shape[0]
        if any(_array(value).shape[axis] != width for value, axis in divided):
            continue
        if divided and not _read_elsewhere(weights, model):
            groups[name] = SmoothingGroup(weights, divided)
    return groups


def smoothing_factors(
    group: SmoothingGroup, largest: Array, *, strength: float
) -> npt.NDArray[np.float32]:
    """Return the factors of a group.

    Args:
        group: The linears.
        largest: Largest magnitude of each channel in each iteration, float (rows, channels).
        strength: Exponent of the activations' share, 0 to 1.

    Returns:
        float32 (channels,), 1 where a channel is silent.
    """
    activations = largest.max(axis=0)
    stored = [_array(weight) for weight in group.weights]
    weights = np.max([np.abs(array).max(axis=1) for array in stored], axis=0)
    loud = (activations > 0) & (weights > 0)
    factors = np.ones(len(activations))
    if strength > 0:
        factors[loud] = activations[loud] ** strength / weights[loud] ** (1 - strength)
    middle = float(np.exp(np.log(factors[loud]).mean())) if loud.any() else 1.0
    return np.asarray(factors / middle, np.float32)


def best_factors(group: SmoothingGroup, largest: Array) -> npt.NDArray[np.float32]:
    """Return the factors whose expected rounding noise in the products is least.

    Noise of the activations: the step of their range, squared, times the weights' power; of the
    weights: the step of each column, squared, times the activations' power; summed over iterations.
    """
    tried = [smoothing_factors(group, largest, strength=strength) for strength in STRENGTHS]
    return min(tried, key=lambda factors: _expected_noise(group, largest, factors))


def _expected_noise(group: SmoothingGroup, largest: Array, factors: Array) -> float:
    power = 0.0
    for weight in group.weights:
        smoothed = _array(weight).astype(np.float64) * factors[:, None]
        ranges = (largest / factors).max(axis=1)  # (rows,)
        typical = ((largest / factors) / 3) ** 2  # a third of the peak stands for the deviation
        steps = np.abs(smoothed).max(axis=0) / 127
        activation = (2 * ranges / 255) ** 2 / 12 * float(np.square(smoothed).sum())
        rounding = typical.sum(axis=1) * float(np.square(steps).sum()) / 12
        power += float((activation + rounding).sum())
    return power


def apply_smoothing(model: ir.Model, factors: Mapping[str, Array]) -> None:
    """Divide activations and multiply weights, in place; the model computes the same.

    Args:
        model: A float graph, loop or unrolled.
        factors: float (channels,) by the name of a group's first linear.

    Raises:
        InputError: The graph has no such group, or another width.
    """
    groups = smoothable(model)
    for name, found in factors.items():
        group, scale = groups.get(name), np.asarray(found, np.float32)
        if group is None or any(len(_array(weight)) != len(scale) for weight in group.weights):
            raise InputError(
                f"the ranges smooth what {name} reads, this graph cannot",
                hint=f"calibrate this file: {option('data', 'samples.npz', command='quantize model.onnx')}",
            )
        for value, axis in group.divided:
            shape = [1] * len(_array(value).shape)
            shape[axis] = -1
            _store(value, _array(value) / scale.reshape(shape))
        for weight in group.weights:
            _store(weight, _array(weight) * scale[:, None])


def rescaled_products(model: ir.Model, names: Collection[str]) -> set[str]:
    """Name the values that linears give divided once groups are smoothed: value projections.

    Args:
        model: The float graph.
        names: First linears of the smoothed groups.
    """
    divided = {
        value
        for name, group in smoothable(model).items()
        if name in names
        for value, _ in group.divided
    }
    return {
        loop_value_name(item.node, item.node.outputs[0].name or "")
        for item in linears(model)
        if item.weight in divided
    }


def _table_of(source: ir.Value) -> list[tuple[ir.Value, int]]:
    """Find the timestep table whose row multiplies the normed state."""
    node = source.producer()
    if node is None or node.op_type not in {"RMSNormalization", "Mul"}:
        return []
    for value in node.inputs:
        gather = None if value is None else value.producer()
        if value is None or gather is None or gather.op_type != "Gather":
            continue
        table = gather.inputs[0]
        if _read_once(value) and table is not None and table.const_value is not None:
            # In the unrolled form every iteration gathers its row of the same table; what another core gathers of it
            # would be divided too.
            readers = {(user.op_type, loop_name(user)) for user in table.consumers()}
            if readers == {("Gather", loop_name(gather))} and len(_array(table).shape) == 2:
                return [(table, 1)]
    return []


def _value_projection_of(source: ir.Value) -> list[tuple[ir.Value, int]]:
    """Find the value projection whose columns attention passes through, channel by channel."""
    node = _before(source, {"Reshape", "Transpose"})
    if node is None or node.op_type != "Attention" or not _read_once(node.outputs[0]):
        return []
    last = node.inputs[2]
    if last is None or not _read_once(last):
        return []
    linear = _before(last, {"Reshape", "Transpose"})
    divided: list[tuple[ir.Value, int]] = []
    if linear is not None and linear.op_type == "Add":
        first, second = linear.inputs
        bias = next((v for v in (first, second) if v is not None and v.const_value), None)
        other = second if bias is first else first
        if bias is None or other is None or len(_array(bias).shape) != 1 or not _read_once(other):
            return []
        divided.append((bias, 0))
        linear = other.producer()
    if linear is None or linear.op_type != "MatMul" or not _read_once(linear.outputs[0]):
        return []
    weight = linear.inputs[1]
    if weight is None or weight.const_value is None or len(_array(weight).shape) != 2:
        return []
    return [*divided, (weight, 1)]


def _before(value: ir.Value, passed: set[str]) -> ir.Node | None:
    """Return the node that makes a value, looking through nodes that only move it."""
    node = value.producer()
    while node is not None and node.op_type in passed and _read_once(node.outputs[0]):
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def _read_once(value: ir.Value) -> bool:
    """Tell whether one node alone reads a value: a graph or body that gives it reads it too, say as a state."""
    return len(value.consumers()) == 1 and not value.is_graph_output()


def _read_elsewhere(weights: list[ir.Value], model: ir.Model) -> bool:
    """Tell whether a weight of a group is read by a node that reads another activation."""
    nodes = {item.node: loop_name(item.node) for item in linears(model)}
    readers = {user for weight in weights for user in weight.consumers()}
    if any(user not in nodes for user in readers):
        return True
    per_weight = [{nodes[user] for user in weight.consumers()} for weight in weights]
    return any(len(names) > 1 for names in per_weight)


def _array(value: ir.Value) -> Array:
    if value.const_value is None:
        raise ValueError(f"{value.name} holds no value")
    return value.const_value.numpy()


def _store(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array, np.float32), name=value.name)
