"""Entries of a stack: what is put together along a new first axis, and read one by one."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from loopedge.graph.core.known_values import constant_of
from loopedge.graph.editing import add_initializer, make_node

__all__ = ["read_entries", "stack_entries"]

AXES_AS_INPUT = 13
"""The opset from which Unsqueeze takes its axes as an input."""


def stack_entries(
    entries: Sequence[ir.Value], name: str, graph: ir.Graph, opset: int
) -> list[ir.Node]:
    """Return nodes that put values together along a new first axis; the last one gives the stack.

    Args:
        entries: Of one shape.
        name: Of the last node.
        graph: The main graph; it gets the constants that are needed.
        opset: Of the model.
    """
    rows = []
    for place, entry in enumerate(entries):
        if opset < AXES_AS_INPUT:
            row = make_node("Unsqueeze", [entry], f"{name}.{place}", {"axes": [0]})
        else:
            axes = add_initializer(graph, "loopedge.axes.0", np.zeros(1, np.int64))
            row = make_node("Unsqueeze", [entry, axes], f"{name}.{place}")
        row.outputs[0].type = entry.type
        if entry.shape is not None:
            row.outputs[0].shape = ir.Shape([1, *entry.shape])
        rows.append(row)
    return [*rows, make_node("Concat", [row.outputs[0] for row in rows], name, {"axis": 0})]


def read_entries(model: ir.Model) -> bool:
    """Let who gathers one entry of a stack at a constant place read that entry, in place.

    Requires: nothing.

    Ensures: outputs of a graph keep their names. What nothing reads any more stays, for another pass to remove.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        entry = _entry_read(node)
        if entry is None or node.graph is None:
            continue
        output, changed = node.outputs[0], True
        if not output.is_graph_output():
            ir.convenience.replace_all_uses_with(output, entry)
            continue
        copy = make_node("Identity", [entry], node.name or node.op_type)
        copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
        node.graph.insert_before(node, copy)
        ir.convenience.replace_all_uses_with(output, copy.outputs[0], replace_graph_outputs=True)
        copy.outputs[0].name = output.name
        copy.outputs[0].meta.clear()
        node.graph.remove(node, safe=True)
    return changed


def _entry_read(node: ir.Node) -> ir.Value | None:
    """Return the entry of a stack that a node reads; None where it does something else."""
    if node.op_type != "Gather" or node.domain or node.attributes.get_int("axis", 0) != 0:
        return None
    stack, place = node.inputs[:2]
    number = None if place is None else constant_of(place)
    joined = None if stack is None else stack.producer()
    if number is None or len(number.shape) or joined is None or joined.op_type != "Concat":
        return None
    if joined.domain or joined.attributes.get_int("axis", 1) != 0:
        return None
    at, rows = int(number.numpy().item()), [_entry_of(row) for row in joined.inputs]
    if any(row is None for row in rows):  # a piece of several entries, as far as is known
        return None
    return rows[at] if -len(rows) <= at < len(rows) else None


def _entry_of(row: ir.Value | None) -> ir.Value | None:
    """Return what a value holds without its first axis of one; None where it is no such row."""
    node = None if row is None else row.producer()
    if node is None or node.op_type != "Unsqueeze" or node.domain:
        return None
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        given = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
        axes = [] if given is None else given.numpy().reshape(-1).tolist()
    return node.inputs[0] if axes == [0] else None
