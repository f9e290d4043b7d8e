"""Make what a graph holds while it computes small, by what the memory profile asks for.

docs/memory.md has the figures, benchmarks/export/activations.py takes them.
"""

from typing import Literal, cast, get_args

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.metadata import MemoryProfile
from loopedge.graph.passes.table_head import read_table_in_place
from loopedge.graph.split.head_groups import split_heads
from loopedge.graph.split.hidden_chunks import split_hidden
from loopedge.options import option

__all__ = ["Activations", "check_activations", "shrink_head", "split_layers"]

Activations = Literal["small", "whole"]
"""``small``: wide layers are computed in parts, where that pays; ``whole``: as the model has them."""


def check_activations(activations: str) -> Activations:
    """Return a choice by its name.

    Raises:
        InputError: There is no such choice.
    """
    if activations not in get_args(Activations):
        raise InputError(
            f"activations {activations!r} is not known, allowed are "
            f"{', '.join(get_args(Activations))}",
            hint=option("activations", "small"),
        )
    return cast("Activations", activations)


def split_layers(model: ir.Model, memory: MemoryProfile, length: int | None) -> dict[str, int]:
    """Split the layers of a float graph, in place.

    Args:
        model: Loop form, as assembled and tidied.
        memory: With ``low`` attention is split too: it takes a little more time.
        length: Positions that an inference is expected to have, where that is known.

    Returns:
        The initializers that were split, by name, with the number of their parts.
    """
    split = split_hidden(model, length=length)
    if memory == "low":
        split |= split_heads(model, length=length)
    return split


def shrink_head(model: ir.Model, memory: MemoryProfile, length: int | None) -> bool:
    """Let a tied float head of a finished graph give its scores at once, in place, with ``low``.

    Returns:
        Whether anything changed.
    """
    return memory == "low" and read_table_in_place(model, length=length)
