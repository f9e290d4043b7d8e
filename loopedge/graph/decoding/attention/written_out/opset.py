"""The opset of a graph, raised: its nodes become what a later opset calls the same computation."""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer

__all__ = ["ATTENTION_OPSET", "can_be_raised", "raise_opset"]

ATTENTION_OPSET, ATTENTION_IR = 23, 11
"""The opset that brought ``Attention``, and the file format that can name it."""

OLDEST = 13
CHANGED = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "DFT",
        "GridSample",
        "GroupNormalization",
        "Resize",
        "Upsample",
    }
)
"""Operators that compute, or take their options, in another way in a later opset than 13."""

REDUCTIONS_OPSET = 18
REDUCTIONS = frozenset(
    f"Reduce{name}"
    for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
"""Their axes were an attribute before opset 18."""


def can_be_raised(model: ir.Model) -> bool:
    """Tell whether `raise_opset` can be called: no node computes something else in a later opset."""
    known = model.opset_imports.get("", 1)
    return (
        known >= OLDEST
        and not model.functions
        and not any(node.op_type in CHANGED and not node.domain for node in model.graph.all_nodes())
    )


def raise_opset(model: ir.Model) -> bool:
    """Raise the opset of a graph to the first that has ``Attention``, in place.

    Requires: `can_be_raised`, where the graph's opset is older.

    Returns:
        Whether anything changed.
    """
    known = model.opset_imports.get("", 1)
    if known >= ATTENTION_OPSET:
        return False
    for node in model.graph.all_nodes():
        if node.domain:
            continue
        if known < REDUCTIONS_OPSET and node.op_type in REDUCTIONS and "axes" in node.attributes:
            axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
            name = f"loopedge.axes.{'x'.join(map(str, axes))}"
            node.resize_inputs(2)
            node.replace_input_with(1, add_initializer(model.graph, name, axes))
        if known < REDUCTIONS_OPSET and node.op_type == "Split" and len(node.inputs) < 2:
            node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    model.opset_imports[""] = ATTENTION_OPSET
    model.ir_version = max(model.ir_version or 0, ATTENTION_IR)
    return True
