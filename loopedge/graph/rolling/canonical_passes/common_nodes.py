"""Nodes that compute the same of the same values, computed once."""

import struct
from collections.abc import Iterator

import onnx_ir as ir

from loopedge.graph.editing import make_node
from loopedge.graph.naming import take_name
from loopedge.graph.operators import Fact, having

__all__ = ["has_body", "is_random", "merge_common_nodes"]

GRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
TENSORS = {
    ir.AttributeType.TENSOR,
    ir.AttributeType.TENSORS,
    ir.AttributeType.SPARSE_TENSOR,
    ir.AttributeType.SPARSE_TENSORS,
}


def has_body(node: ir.Node) -> bool:
    """Tell whether a node holds graphs."""
    return any(attribute.type in GRAPHS for attribute in node.attributes.values())


def is_random(node: ir.Node) -> bool:
    """Tell whether a node may give something else each time; what is not known may."""
    if node.op_type in having(Fact.RANDOM):
        return True
    if node.op_type == "Dropout":  # from opset 12 on its third input chooses training
        return len(node.inputs) > 2 and node.inputs[2] is not None
    return node.domain not in {"", "ai.onnx", "com.microsoft"}


def merge_common_nodes(graph: ir.Graph) -> bool:
    """Let what reads a node read an earlier one that computes the same, in place; bodies stay as they are.

    Requires: the nodes stand in an order in which they can run.

    Returns:
        Whether anything changed.
    """
    known: dict[tuple[object, ...], ir.Node] = {}
    changed = False
    for node in list(graph):
        if has_body(node) or is_random(node):
            continue
        key = (
            node.op_identifier(),
            tuple(map(id, node.inputs)),
            tuple(bool(output.name) for output in node.outputs),
            tuple(sorted(_attributes(node))),
        )
        first = known.setdefault(key, node)
        if first is not node:
            _replace(graph, node, first)
            changed = True
    return changed


def _attributes(node: ir.Node) -> Iterator[tuple[str, str]]:
    """Yield what attributes hold, as text that is equal for equal bits alone."""
    for name, attribute in node.attributes.items():
        if attribute.type in TENSORS:
            yield name, f"{id(node)}"
        elif attribute.type == ir.AttributeType.FLOAT:
            yield name, struct.pack("<f", attribute.as_float()).hex()
        elif attribute.type == ir.AttributeType.FLOATS:
            floats = attribute.as_floats()
            yield name, struct.pack(f"<{len(floats)}f", *floats).hex()
        else:
            value = attribute.value
            yield name, repr(tuple(value) if isinstance(value, (list, tuple)) else value)


def _replace(graph: ir.Graph, node: ir.Node, first: ir.Node) -> None:
    for old, new in zip(node.outputs, first.outputs, strict=True):
        if old.is_graph_output():
            new = _output_in_place_of(graph, node, old, new)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _output_in_place_of(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """Return what is given as an output instead of ``old``: its name stays, and no value is given twice."""
    name = old.name
    if not new.is_graph_output():
        take_name(new, name)
        return new
    copy = make_node("Identity", [new], f"{name}.copy")
    copy.outputs[0].type, copy.outputs[0].shape = old.type, old.shape
    graph.insert_before(node, copy)
    old.name = f"{name}.merged"
    take_name(copy.outputs[0], name)
    return copy.outputs[0]
