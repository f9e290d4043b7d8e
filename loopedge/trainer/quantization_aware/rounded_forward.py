"""Train with rounded weights: what the file of a scheme will compute, in the forward pass of training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  PyTorch's own name for it
from torch import Tensor, nn

from loopedge.graph.integer_weights.block_weights import DEFAULT_BLOCK, would_grow
from loopedge.graph.integer_weights.blocks import best_block_size
from loopedge.graph.integer_weights.embedding_rows import NARROWEST, SMALLEST_BYTES
from loopedge.model.transformer import LoopedTransformer
from loopedge.trainer.quantization_aware.nearest import round_blocks, round_channels
from loopedge.trainer.quantization_aware.products import Products
from loopedge.trainer.quantization_aware.straight_through import round_dynamic

__all__ = ["AWARE_OF", "Aware", "rounded_weights"]

Aware = Literal["int8", "int4"]
AWARE_OF: dict[str, str] = {"int8": "dynamic", "int4": "weight-int4"}
"""The scheme of ``quantize`` that training with a number format prepares for."""

GENERATOR = "timestep."
"""Parameters under this prefix make the timestep table: they are not in the file."""


@contextmanager
def rounded_weights(model: nn.Module, aware: Aware | None) -> Iterator[None]:
    """Round the weights of a model, as its quantized file has them, in the forward passes inside the block.

    The weights themselves stay as they are, and must not change inside the block. Gradients pass the rounding as if it were
    not there. ``int8``: weights by channel, and what a product reads by its range at run time; ``int4``: weights in blocks.

    Args:
        model: A `LoopedTransformer`.
        aware: The number format; None: nothing is rounded.
    """
    if aware is None:
        yield
        return
    with Products(_RoundedWeights(model, aware)):
        yield


class _RoundedWeights:
    """Computes the products of a model with weights rounded to nearest."""

    def __init__(self, model: nn.Module, aware: Aware) -> None:
        self._aware, self._with_gradient = aware, torch.is_grad_enabled()
        self._rules: dict[int, Callable[[Tensor], Tensor]] = {}
        self._made: dict[int, Tensor] = {}
        multiplied = {
            module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Linear)
        }
        if isinstance(model, LoopedTransformer) and model.config.head_is_tied:
            multiplied.add(model.embedding.weight.data_ptr())
        for name, weight in model.named_parameters():
            if name.startswith(GENERATOR) or weight.dim() != 2:
                continue
            rule = (
                self._rule(weight) if weight.data_ptr() in multiplied else _row_rule(name, weight)
            )
            if rule is not None:
                self._rules[weight.data_ptr()] = rule

    def product(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """Return x times the transposed weight, rounded."""
        rounded = self.weight(weight)
        return None if rounded is None else F.linear(self.rounded_input(x, weight), rounded)

    def weight(self, weight: Tensor) -> Tensor | None:
        """Return the rounded weight; all products inside the block share it."""
        place = weight.data_ptr()
        if place not in self._rules:
            return None
        if place not in self._made:
            # Iterations without gradients may be the first that ask for it.
            with torch.set_grad_enabled(self._with_gradient):
                self._made[place] = self._rules[place](weight)
        return self._made[place]

    def rounded_input(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return what a product reads, rounded in int8."""
        return round_dynamic(x.float()) if self._aware == "int8" else x

    def table(self, table: Tensor) -> Tensor | None:
        """Return a table whose rows are stored as integers, rounded."""
        return self.weight(table)

    def _rule(self, weight: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return how a weight that is multiplied is stored; None: in float."""
        if self._aware == "int8":
            return round_channels
        inputs, largest = weight.shape[1], DEFAULT_BLOCK[4]
        if would_grow(inputs, bits=4, largest=largest):
            return None
        size = best_block_size(inputs, bits=4, largest=largest)
        return partial(round_blocks, bits=4, block_size=size)


def _row_rule(name: str, weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return how the rows of an embedding are stored that is no head; None: in float, as positions are."""
    small = weight.numel() * 4 < SMALLEST_BYTES or weight.shape[1] < NARROWEST
    return None if small or name != "embedding.weight" else round_channels
