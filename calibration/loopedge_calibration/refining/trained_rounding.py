"""Weights whose rounding is trained: a number per weight that is rounded to a level in each forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from loopedge.graph.integer_weights.blocks import Blocks
from loopedge.graph.integer_weights.levels import levels_of, steps_of, with_levels
from loopedge.graph.integer_weights.rounded_weights import RoundedWeight
from loopedge.trainer.quantization_aware.products import Products
from loopedge.trainer.quantization_aware.straight_through import (
    round_dynamic,
    round_in_blocks,
    round_static,
    whole,
)
from loopedge_calibration.refining.operands import Operands, Tile
from loopedge_calibration.refining.plan import Ranges, RoundingPlan, Use, WeightPlan

__all__ = ["TrainedRounding"]

NEAREST = 0.49
"""How far from its level a trained number may begin, so that it still rounds to it."""


class TrainedRounding:
    """Computes the products of a module with rounded weights, which it trains.

    A module's own parameters stay as they are: an operand that is a weight of the plan is replaced.

    Args:
        plan: What is rounded, and how.
        names: What the module calls its tensors, by their place in memory.
        half: The graph stores its weights in float16.

    Attributes:
        levels: Trained, float32 (outputs, inputs), by weight: where they are rounded they are the levels.
    """

    def __init__(self, plan: RoundingPlan, names: Mapping[int, str], *, half: bool = False) -> None:
        self._plan = plan
        self._weights = {name: _Weight(found) for name, found in plan.weights.items()}
        self.levels = {name: found.levels for name, found in self._weights.items()}
        exact = {
            name: torch.from_numpy(np.array(found.exact)) for name, found in plan.weights.items()
        }
        tables = {name: torch.from_numpy(np.array(table)) for name, (table, _) in plan.rows.items()}
        self._operands = Operands(exact, names, half=half)
        self._tables = Operands(exact | tables, names, half=half)
        self._rows = {name: torch.from_numpy(rows) for name, (_, rows) in plan.rows.items()}
        self._read: dict[Tile, int] = {}
        self._made: dict[str, Tensor] = {}

    @property
    def unmatched(self) -> list[str]:
        """The linears whose weight no product of the passes so far had."""
        return [
            use.linear
            for name, found in self._plan.weights.items()
            if name not in self._operands.found
            for use in found.uses
        ]

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Round in the one forward pass that is made inside the block."""
        self._read, self._made = {}, {}
        with Products(self):
            yield
        self._made = {}

    def rounded(self) -> dict[str, RoundedWeight]:
        """Return what the weights are now."""
        return {
            name: with_levels(found.rounded, self._weights[name].whole_levels())
            for name, found in self._plan.weights.items()
        }

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the trained numbers within the levels that can be stored."""
        for found in self._weights.values():
            found.levels.clamp_(*found.bounds)

    def product(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """Return x (..., inputs) times the transposed weight (outputs, inputs), both rounded."""
        operand = self._operands.find(weight)
        if operand is None:
            return None
        made = [self._tile_product(x, tile) for tile in operand]
        if len(made) == 1:
            return made[0]
        if operand[0].inputs == operand[-1].inputs:  # parts of the outputs
            return torch.cat(made, dim=-1)
        return torch.stack(made).sum(dim=0)

    def weight(self, weight: Tensor) -> Tensor | None:
        """Return the rounded weight behind one whose product something else makes, in the module's own scale."""
        operand = self._operands.find(weight)
        if operand is None:
            return None
        made = []
        for tile in operand:
            found, part = self._weights[tile.name], self._part(tile)
            if found.divided is not None:
                part = part / found.divided[slice(*tile.own_inputs)]
            made.append(part if found.multiplied is None else part * self._outputs(tile)[:, None])
        axis = 0 if operand[0].inputs == operand[-1].inputs else 1
        return torch.cat(made, dim=axis)

    def rounded_input(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x as the product with a weight of the plan reads it."""
        operand = self._operands.find(weight)
        if operand is None or isinstance(self._plan.weights[operand[0].name].rounded, Blocks):
            return x  # the kernel of blocks rounds windows, which are not there
        return self._rounded_activation(x, operand[0])

    def table(self, table: Tensor) -> Tensor | None:
        """Return the rounded table behind one of which rows are taken."""
        operand = self._tables.find(table)
        if operand is None or len(operand) != 1:
            return None
        name, (first, end) = operand[0].name, operand[0].own_outputs
        whole_table = self._rows[name] if name in self._rows else self._floats(name)
        return whole_table[first:end]

    def _tile_product(self, x: Tensor, tile: Tile) -> Tensor:
        found = self._weights[tile.name]
        first, end = tile.inputs
        read = x if end - first == x.shape[-1] else x[..., first:end]
        if found.divided is not None:
            read = read / found.divided
        read = self._rounded_activation(read, tile)
        made = torch.nn.functional.linear(read, self._part(tile))
        return made if found.multiplied is None else made * self._outputs(tile)

    def _rounded_activation(self, x: Tensor, tile: Tile) -> Tensor:
        """Round what a product reads by the range of its iteration: how often the weight was read tells which."""
        weight = self._plan.weights[tile.name]
        if isinstance(weight.rounded, Blocks):
            return round_in_blocks(x, weight.rounded.block_size)
        count = self._read[tile] = self._read.get(tile, -1) + 1
        use, iteration = _use_at(weight, count, self._plan.iterations)
        if isinstance(use.activations, Ranges):
            row = min(iteration, len(use.activations.scales) - 1)
            scale = torch.tensor(float(use.activations.scales[row]))
            return round_static(x, scale, torch.tensor(float(use.activations.zero_points[row])))
        return round_dynamic(x) if use.activations == "dynamic" else x

    def _outputs(self, tile: Tile) -> Tensor:
        found = self._weights[tile.name].multiplied
        assert found is not None
        return found[slice(*tile.own_outputs)]

    def _part(self, tile: Tile) -> Tensor:
        whole_weight = self._floats(tile.name)
        if (tile.own_outputs, tile.own_inputs) == tuple((0, size) for size in whole_weight.shape):
            return whole_weight
        return whole_weight[slice(*tile.own_outputs), slice(*tile.own_inputs)]

    def _floats(self, name: str) -> Tensor:
        """Return the weight that the levels stand for; all products of a pass share it."""
        if name not in self._made:
            found = self._weights[name]
            self._made[name] = whole(found.levels) * found.steps
        return self._made[name]


class _Weight:
    """The tensors of a planned weight."""

    def __init__(self, plan: WeightPlan) -> None:
        levels, steps = levels_of(plan.rounded), np.array(steps_of(plan.rounded))
        # Numbers that all begin at their levels would leave them in the same step. The exact weight lies somewhere between
        # two levels, and so does what it becomes where data has rounded it to another one.
        exact = plan.smoothed / steps
        between = np.clip(exact - np.rint(exact), -NEAREST, NEAREST)
        self.levels = torch.from_numpy((levels + between).astype(np.float32)).requires_grad_()
        self.steps = torch.from_numpy(steps)
        self.bounds = plan.bounds
        self.divided = None if plan.divided is None else torch.from_numpy(plan.divided)
        self.multiplied = None if plan.multiplied is None else torch.from_numpy(plan.multiplied)

    @torch.no_grad()
    def whole_levels(self) -> np.ndarray:
        levels: np.ndarray = self.levels.round().clamp(*self.bounds).numpy()
        return levels


def _use_at(
    weight: WeightPlan, count: int, iterations: Mapping[str, int | None]
) -> tuple[Use, int]:
    """Return which linear reads a weight when it is read for the (count + 1)-th time, and in which iteration."""
    uses = list(weight.uses)
    while uses:
        core = uses[0].core
        own = [use for use in uses if use.core == core] if core is not None else uses[:1]
        runs = 1 if core is None else iterations.get(core)
        last = len(own) == len(uses)
        if last or runs is None or count < len(own) * runs:
            iteration, place = divmod(count, len(own))
            return own[place], iteration
        count -= len(own) * runs
        uses = [use for use in uses if use not in own]
    return weight.uses[-1], count
