"""Weights outside the cores that eight bits suit better than fewer: a head, above all one that is the embedding too.

An iteration's error passes through the rest of the loop; that of the head goes into the outputs as it is, and where the head's
table is the embedding, into everything. Whether eight bits are worth their bytes is measured, with all weights rounded to nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.weights import linears, stored_bytes
from loopedge.quantizer.choice.rule import Limits, worth_bytes
from loopedge.quantizer.recipe import BLOCKS_OPSET, Recipe
from loopedge.quantizer.schemes.weight_only import WEIGHT_BITS
from loopedge.units import size_text
from loopedge_calibration.budget import WEIGHT_INT8, levels_of, lifted_recipe
from loopedge_calibration.rounding.contest import Contest, Entry

__all__ = ["LiftedEdge", "lift_edges"]

MOST_EDGES = 4
"""Weights that are tried, those of the most bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftedEdge:
    """A weight outside the cores that is stored in eight bits: what that wins and costs."""

    name: str
    won_db: float
    bytes: int

    @property
    def note(self) -> str:
        """Say it in one line."""
        return (
            f"{self.name} stands in eight bits: that wins {self.won_db:.1f} dB on the samples that choose and takes "
            f"{size_text(self.bytes)} more"
        )


def lift_edges(
    model: ir.Model, recipe: Recipe, contest: Contest, nearest: Entry, float_bytes: int
) -> tuple[Recipe, Entry, list[LiftedEdge]]:
    """Store weights outside the cores in eight bits, where that is worth its bytes.

    Args:
        model: The float graph.
        recipe: How it is quantized; what it names already stays as it is.
        contest: Measures on the samples that choose.
        nearest: What the recipe gives there.
        float_bytes: Of the float model's files.

    Returns:
        The recipe, what it gives, and what was lifted.
    """
    limits = Limits(metric="relative-error", float_bytes=float_bytes)
    best, lifted = nearest, list[LiftedEdge]()
    for name, more in _edges(model, recipe):
        trial = lifted_recipe(recipe, {name: WEIGHT_INT8})
        entry = contest.measure(f"nearest, {name} in eight bits", trial)
        won = entry.sqnr_db - best.sqnr_db
        if worth_bytes(won, more, limits):
            recipe, best = trial, entry
            lifted.append(LiftedEdge(name=name, won_db=won, bytes=more))
    return recipe, best, lifted


def _edges(model: ir.Model, recipe: Recipe) -> Sequence[tuple[str, int]]:
    """Return weights of fewer than eight bits outside the cores by the first linear that reads each, and what eight add."""
    bits = WEIGHT_BITS.get(recipe.scheme, 8)
    if bits >= 8 or (model.opset_imports.get("") or 0) < BLOCKS_OPSET:
        return []  # a file of an earlier opset is for releases without products of eight-bit blocks
    cores, levels = Cores(model), levels_of(model, recipe)
    inside = {item.weight for item in linears(model) if cores.of(item.node) is not None}
    found: dict[str, int] = {}
    for item in linears(model):
        name = loop_name(item.node)
        if item.weight not in inside and WEIGHT_INT8 in levels.get(name, ())[1:]:
            found[name] = stored_bytes(item.weight) * (8 - bits) // 32
    ranked = sorted(found.items(), key=lambda each: -each[1])
    return ranked[:MOST_EDGES]
