"""What a graph adds to its outputs last: the mean of the data, which says nothing of the computation."""

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

__all__ = ["output_offsets"]

Array = npt.NDArray[Any]


def output_offsets(model: ir.Model) -> dict[str, Array]:
    """Return the stored constants that are added to outputs by their last node, by output.

    A series far from zero has outputs that are nearly all mean. Errors and signals are judged without
    it: against the raw outputs every model of such a series would look exact.
    """
    offsets: dict[str, Array] = {}
    for value in model.graph.outputs:
        node = value.producer()
        if node is None or node.op_type != "Add":
            continue
        stored = [s for s in node.inputs if s is not None and s.const_value is not None]
        if len(stored) == 1 and stored[0].const_value is not None:
            offsets[value.name or ""] = stored[0].const_value.numpy()
    return offsets
