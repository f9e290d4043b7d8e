"""A model in which every float is rounded to bfloat16: what an engine that computes in bfloat16 does to its outputs."""

import onnx_ir as ir

from loopedge.graph.editing import make_node
from loopedge.graph.operators import Fact, having

__all__ = ["round_to_bfloat16"]

SINCE = 13
"""The opset from which Cast knows bfloat16."""

PRODUCTS = having(Fact.FLOAT) & (having(Fact.MATMUL) | having(Fact.ATTENTION))
SOURCES = PRODUCTS | having(Fact.NORM) | having(Fact.SOFTMAX)
"""Operators that make floats, whatever stands before them."""
OTHER_TYPES = frozenset(
    [
        "And",
        "Cast",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Not",
        "Or",
        "Xor",
    ]
)
FOLLOWERS = (having(Fact.UNARY) | having(Fact.BROADCAST)) - OTHER_TYPES
"""Operators whose output is float where an input is."""
FACTORS = dict.fromkeys(having(Fact.ATTENTION), 3)
"""How many inputs are factors of a product; of the others two."""


def round_to_bfloat16(model: ir.Model) -> ir.Model | None:
    """Return the graph with what products read, and what every node of floats gives, rounded to bfloat16 and back.

    Sums inside a product stay float32, as in the instructions that multiply bfloat16 (AMX, AVX512-BF16, tensor
    cores); what goes from node to node is rounded, as where an engine stores it in bfloat16. It is rounded behind
    elementwise nodes too, which an engine may fuse: this is the most that bfloat16 should cost.

    Requires: floats are float32.

    Ensures: what is stored, and every name, stays; a copy is returned.

    Args:
        model: Any form. Not modified.

    Returns:
        The copy; None where it holds no float product, or its opset has no bfloat16.
    """
    if (model.opset_imports.get("") or 0) < SINCE:
        return None
    rounded = model.clone()
    nodes = list(rounded.graph.all_nodes())
    if not any(node.op_type in PRODUCTS for node in nodes):
        return None
    floats: set[int] = set()
    for number, node in enumerate(nodes):
        if node.op_type in PRODUCTS:
            for place in range(min(FACTORS.get(node.op_type, 2), len(node.inputs))):
                _round_input(node, place, f"bfloat16.{number}.{place}")
        follows = node.op_type in FOLLOWERS and any(id(value) in floats for value in node.inputs)
        if node.op_type in SOURCES or follows:
            floats.add(id(node.outputs[0]))
            floats.add(id(_round_output(node, f"bfloat16.{number}", rounded.graph)))
    return rounded


def _round_input(node: ir.Node, place: int, name: str) -> None:
    value = node.inputs[place]
    if value is None:
        return
    there, back = _casts(value, name)
    _graph_of(node).insert_before(node, [there, back])
    node.replace_input_with(place, back.outputs[0])


def _round_output(node: ir.Node, name: str, main: ir.Graph) -> ir.Value:
    """Let everything that reads the first output of a node read it rounded, the state of a Loop too."""
    value, graph = node.outputs[0], _graph_of(node)
    readers = list(value.uses())
    there, back = _casts(value, name)
    graph.insert_after(node, [there, back])
    for reader, place in readers:
        reader.replace_input_with(place, back.outputs[0])
    if graph is not main:
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = back.outputs[0]
    return back.outputs[0]


def _casts(value: ir.Value, name: str) -> tuple[ir.Node, ir.Node]:
    there = make_node("Cast", [value], f"{name}.to", {"to": ir.DataType.BFLOAT16})
    return there, make_node("Cast", there.outputs, f"{name}.from", {"to": ir.DataType.FLOAT})


def _graph_of(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
