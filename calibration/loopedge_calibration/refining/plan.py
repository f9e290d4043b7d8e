"""What a recipe rounds: each weight as it is stored at first, and how each product rounds what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.integer_weights.block_weights import BlockWeights
from loopedge.graph.integer_weights.blocks import best_block_size, quantize_blocks
from loopedge.graph.integer_weights.channels import INT8_LIMIT, REDUCED_LIMIT, quantize_weight
from loopedge.graph.integer_weights.levels import bounds_of
from loopedge.graph.integer_weights.rounded_weights import Channels, RoundedWeight
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.smoothing import apply_smoothing, smoothable
from loopedge.quantizer.recipe import Recipe, Rewritten
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS

__all__ = ["Ranges", "RoundingPlan", "Use", "WeightPlan", "plan_rounding"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Scales, float32 (rows,), and zero points, u8 (rows,), of an activation: one of each per iteration."""

    scales: Array
    zero_points: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A linear that reads a weight.

    ``core``: the one that runs it, by name; None: it runs once. ``activations``: how what it reads is rounded.
    """

    linear: str
    core: str | None
    activations: Ranges | Literal["dynamic", "float"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """A weight that the recipe rounds.

    ``exact``: float32 (outputs, inputs), of the float graph; ``smoothed``: what is rounded of it; ``rounded``: what is stored at
    first; ``bounds``: the least and the greatest level. ``divided``: what the inputs are divided by before the product, ``multiplied``: what the outputs are
    multiplied by after it, float32, so that the product with the smoothed weight is that of the exact one.
    """

    name: str
    exact: Array
    smoothed: Array
    rounded: RoundedWeight
    bounds: tuple[int, int]
    uses: tuple[Use, ...]
    divided: Array | None = None
    multiplied: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingPlan:
    """All that a recipe rounds in products and tables.

    ``weights`` by name; ``rows``: tables that only an embedding reads, exact and as their stored rows stand for them;
    ``iterations``: how often each core runs, where that is known.
    """

    weights: Mapping[str, WeightPlan]
    rows: Mapping[str, tuple[Array, Array]]
    iterations: Mapping[str, int | None]


def plan_rounding(model: ir.Model, recipe: Recipe) -> RoundingPlan:
    """Return what a recipe rounds in a float graph, which is not modified.

    Weights that `Recipe.rounded` holds begin as it has them, the others as they are rounded to nearest.
    """
    clone = model.clone()
    rewritten = recipe.apply(clone)
    smoothed = model.clone()
    table = recipe.table if recipe.scheme == "static" else None
    if table is not None:
        apply_smoothing(smoothed, table.factors())
    own = {item.weight.name or "": _rows(item) for item in linears(smoothed)}
    divided, multiplied = _factors(model, table)
    stored = set(rewritten.coverage.quantized)
    readers: dict[str, list[Linear]] = {}
    for item in linears(model):
        if item.node.name in stored:
            readers.setdefault(item.weight.name or "", []).append(item)
    uses = _uses(model, recipe, rewritten)
    weights = {
        name: WeightPlan(
            name=name,
            exact=_rows(items[0]),
            smoothed=own[name],
            rounded=(started := _start(name, own[name], recipe, rewritten, items)),
            bounds=bounds_of(started, REDUCED_LIMIT if recipe.reduce_range else INT8_LIMIT),
            uses=tuple({use.linear: use for use in (uses[item.node] for item in items)}.values()),
            divided=divided.get(name),
            multiplied=multiplied.get(name),
        )
        for name, items in readers.items()
    }
    return RoundingPlan(
        weights=weights,
        rows=_embedding_rows(model, rewritten, {item.weight.name for item in linears(model)}),
        iterations=Cores(model).iterations,
    )


def _rows(item: Linear) -> Array:
    """Return a weight as (outputs, inputs)."""
    if item.weight.const_value is None:
        raise ValueError(f"{item.weight.name} is not a stored weight")
    stored = item.weight.const_value.numpy()
    return np.ascontiguousarray(stored.T if item.index == 1 else stored, np.float32)


def _start(
    name: str, rows: Array, recipe: Recipe, rewritten: Rewritten, items: list[Linear]
) -> RoundedWeight:
    """Return a weight as the recipe stores it."""
    treatment = _treatment(recipe, rewritten, loop_name(items[0].node))
    chosen = recipe.rounded.get(name)
    if treatment not in WEIGHT_BITS:
        if isinstance(chosen, Channels):
            return chosen
        limit = REDUCED_LIMIT if recipe.reduce_range else INT8_LIMIT
        return Channels(*quantize_weight(rows, axis=0, limit=limit))
    bits = WEIGHT_BITS[treatment]
    if chosen is not None and not isinstance(chosen, Channels) and chosen.bits == bits:
        return chosen
    largest = BlockWeights(bits, recipe.block_size).block_size
    size = best_block_size(rows.shape[1], bits=bits, largest=largest)
    return quantize_blocks(rows, bits=bits, block_size=size)


def _treatment(recipe: Recipe, rewritten: Rewritten, linear: str) -> str:
    other = {item.name: item.treatment for item in rewritten.treatments}
    return other.get(linear, recipe.scheme)


def _uses(model: ir.Model, recipe: Recipe, rewritten: Rewritten) -> dict[ir.Node, Use]:
    """Return how each linear rounds what it reads; linears that read one value share the ranges of the first."""
    cores, table, found = Cores(model), recipe.table, dict[ir.Node, Use]()
    first: dict[tuple[ir.Value | None, object], str] = {}
    for item in linears(model):
        name, core = loop_name(item.node), cores.of(item.node)
        treatment = _treatment(recipe, rewritten, name)
        activations: Ranges | Literal["dynamic", "float"] = "dynamic"
        if treatment in WEIGHT_BITS or treatment == "float":
            activations = "float"
        elif treatment == "static" and table is not None and name in table.tensors:
            source = first.setdefault((item.node.inputs[1 - item.index], item.node.graph), name)
            activations = Ranges(*table.tensors[source].quantization())
        found[item.node] = Use(
            linear=name, core=None if core is None else core.name, activations=activations
        )
    return found


def _factors(
    model: ir.Model, table: RangeTable | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return by weight what smoothing divides the inputs of its products by, and what their outputs are divided by."""
    inputs, outputs = dict[str, Array](), dict[str, Array]()
    factors = {} if table is None else table.factors()
    groups = smoothable(model) if factors else {}
    for name, found in factors.items():
        for weight in groups[name].weights:
            inputs[weight.name or ""] = found
        for value, axis in groups[name].divided:
            if axis == 1:
                outputs[value.name or ""] = found
    return inputs, outputs


def _embedding_rows(
    model: ir.Model, rewritten: Rewritten, read: set[str | None]
) -> dict[str, tuple[Array, Array]]:
    """Return the tables that only an embedding reads: exact, and as their rows are stored."""
    found = {}
    for name in rewritten.embeddings.quantized:
        stored = model.graph.initializers[name].const_value
        if name in read or stored is None:
            continue
        exact = np.asarray(stored.numpy(), np.float32)
        values, scales = quantize_weight(exact, axis=0)
        found[name] = exact, values * scales[:, None]
    return found
