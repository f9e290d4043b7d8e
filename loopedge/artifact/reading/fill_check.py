"""Refuse nodes that fill memory from a few bytes: a constant shape of a node that makes a tensor out of nothing.

ONNX Runtime computes such nodes while it opens a file.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.shapes import constant_ints

__all__ = ["MOST_VALUES", "check_fills"]

MOST_VALUES = 2**27
"""Of a tensor that a node fills: half a GiB of float32."""

SHAPE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
SHAPE_ATTRIBUTE = {"RandomNormal", "RandomUniform"}


def check_fills(model: ir.Model, source: Path) -> None:
    """Refuse a node that fills more than `MOST_VALUES`, where its shape is constant.

    Raises:
        InputError: As said.
    """
    nodes = list(model.graph.all_nodes())
    for function in model.functions.values():
        nodes += function.all_nodes()
    for node in nodes:
        count = _filled(node) if not node.domain else None
        if count is not None and count > MOST_VALUES:
            raise InputError(
                f"{source}: {node.op_type} {node.name or ''} fills {count:,} values, at most "
                f"{MOST_VALUES:,} are allowed"
            )


def _filled(node: ir.Node) -> int | None:
    """Return how many values a node makes at least, where constants alone say so."""
    place = SHAPE_INPUT.get(node.op_type)
    if place is not None and place < len(node.inputs):
        return _product(constant_ints(node.inputs[place]))
    if node.op_type in SHAPE_ATTRIBUTE:
        return _product(node.attributes["shape"].as_ints()) if "shape" in node.attributes else None
    if node.op_type == "Range":
        bounds = [constant_ints(value) for value in node.inputs]
        if any(bound is None or len(bound) != 1 for bound in bounds):
            return None
        (start,), (end,), (step,) = (bound or [0] for bound in bounds)
        return max(0, -(-(end - start) // step)) if step else None
    return None


def _product(sizes: Sequence[int] | None) -> int | None:
    return None if sizes is None else math.prod(max(size, 1) for size in sizes)
