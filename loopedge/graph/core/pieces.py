"""Nodes that stand in no graph yet, with what they read and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Piece", "connect", "copy_shape"]


@dataclass(slots=True)
class Piece:
    """Nodes in their order; ``inputs`` are values that no node makes, to be replaced by `connect`."""

    inputs: list[ir.Value]
    outputs: list[ir.Value]
    nodes: list[ir.Node]


def connect(inputs: Sequence[ir.Value], sources: Sequence[ir.Value], piece: Piece) -> None:
    """Let ``sources`` feed what ``inputs`` fed, also where a piece passes an input through, in place."""
    for value, source in zip(inputs, sources, strict=True):
        ir.convenience.replace_all_uses_with(value, source)
        piece.outputs = [source if output is value else output for output in piece.outputs]


def copy_shape(shape: ir.Shape | None) -> ir.Shape | None:
    """Return a shape that belongs to no other value."""
    return None if shape is None else ir.Shape(list(shape))
