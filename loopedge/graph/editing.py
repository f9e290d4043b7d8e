"""Small edits of a graph: add an initializer, make a node, put nodes in the place of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["add_initializer", "initializer", "insert_before", "make_node", "replace_node"]


def initializer(name: str, data: npt.NDArray[np.generic] | ir.TensorProtocol) -> ir.Value:
    """Return a value that holds ``data``, ready to be registered in a graph.

    Args:
        name: Of the value.
        data: An array, or a tensor that may still lie on disk.
    """
    tensor = ir.tensor(data, name=name) if isinstance(data, np.ndarray) else data
    return ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape([int(size) for size in tensor.shape]),  # type: ignore[arg-type]
        const_value=tensor,
    )


def add_initializer(
    graph: ir.Graph, name: str, data: npt.NDArray[np.generic] | ir.TensorProtocol
) -> ir.Value:
    """Return the initializer ``name`` of ``graph``, registered with ``data`` where it is new."""
    if name not in graph.initializers:
        graph.register_initializer(initializer(name, data))
    return graph.initializers[name]


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
) -> ir.Node:
    """Return a node of one output, which is called ``<name>.output``."""
    node = ir.node(op_type, inputs, attributes=attributes, domain=domain, name=name)
    node.outputs[0].name = f"{name}.output"
    return node


def insert_before(node: ir.Node, new: ir.Node) -> None:
    """Put ``new`` into the graph of ``node``, before it."""
    if node.graph is None:
        raise ValueError(f"node {node.name} stands in no graph")
    node.graph.insert_before(node, new)


def replace_node(node: ir.Node, new: Sequence[ir.Node]) -> None:
    """Put ``new`` in the place of ``node``; the last one takes over its output and its name.

    Outputs of ``new`` that have no type yet get the type of the old output.
    """
    if node.graph is None:
        raise ValueError(f"node {node.name} stands in no graph")
    old, last = node.outputs[0], new[-1].outputs[0]
    for made in new:
        if made.outputs[0].type is None:
            made.outputs[0].type = old.type
        if made.outputs[0].name == old.name:  # the last node alone takes the old name
            made.outputs[0].name = f"{old.name}.{made.op_type}"
    last.shape, name = old.shape, old.name
    node.graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(old, last, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    last.name = name
