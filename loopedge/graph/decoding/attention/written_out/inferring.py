"""Types and shapes of the values of a graph that says little of them."""

import onnx_ir as ir

from loopedge.graph.rolling.canonical_passes.inference import infer

__all__ = ["infer_more"]


def infer_more(model: ir.Model) -> None:
    """Note types and shapes that ONNX can tell, in place; what the graph says already, by sizes of its inputs, stays."""
    named = {
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    said = {
        output: list(output.shape)
        for node in model.graph.all_nodes()
        for output in node.outputs
        if output.shape is not None
    }
    for place, node in enumerate(model.graph.all_nodes()):
        node.name = (
            node.name or f"{node.op_type}_{place}"
        )  # the inference knows bodies by their nodes
    infer(model)
    for value, before in said.items():
        if value.shape is None or len(value.shape) != len(before):
            continue
        value.shape = ir.Shape(
            [
                old if isinstance(old, int) or old.value in named else new
                for old, new in zip(before, value.shape, strict=True)
            ]
        )
