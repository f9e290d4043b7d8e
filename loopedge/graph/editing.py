"""Small edits of a graph: add an initializer, make a node, put nodes in the place of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.naming import free_name, mark_made_up, take_name

__all__ = [
    "INTEGERS_SINCE",
    "add_initializer",
    "initializer",
    "insert_before",
    "make_node",
    "remove_identities",
    "replace_node",
    "structure",
]

INTEGERS_SINCE = 12
"""The opset from which Max and Min take integers."""


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
    """Return an initializer of ``graph`` that holds ``data``.

    One of this name that holds the same is taken. One that holds something else, or that a caller of the model may
    overwrite (an input with a default), stays as it is: the new one gets a number behind its name. So ask the value
    that is returned for its name.

    Args:
        graph: The main graph, as a rule.
        name: What it shall be called.
        data: An array, or a tensor that may still lie on disk.
    """
    made = initializer(name, data)
    taken, number = name, 0
    while (known := graph.initializers.get(taken)) is not None:
        if known not in graph.inputs and _same(known.const_value, made.const_value):
            return known
        number += 1
        taken = f"{name}.{number}"
    made.name = free_name(taken, {value.name for value in graph.inputs})
    mark_made_up(made)
    graph.register_initializer(made)
    return made


def _same(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    """Tell whether two tensors are of one type and shape and hold the same bits."""
    if one is None or other is None:
        return False
    alike = one.dtype == other.dtype and list(one.shape) == list(other.shape)
    return alike and (one is other or one.tobytes() == other.tobytes())


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
    mark_made_up(node.outputs[0])
    mark_made_up(node)
    return node


def structure(model: ir.Model) -> list[tuple[Any, ...]]:
    """Return what passes change of a graph: equal before and after one that changed nothing.

    Nodes in their order with their attributes, inputs and outputs, initializers with what they hold, all with names
    and notes. Types and shapes, and the properties of the model, are not among it.
    """
    found: list[tuple[Any, ...]] = []
    for graph in (model.graph, *model.graph.subgraphs()):
        ends = tuple(_noted(value) for value in (*graph.inputs, *graph.outputs))
        found.append((_noted(graph), ends))
        found += [
            (_noted(value), value.const_value, value.dtype) for value in graph.initializers.values()
        ]
        for node in graph:
            attributes = tuple(
                (name, attribute.value)
                for name, attribute in node.attributes.items()
                if attribute.type not in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
            )
            made = tuple(map(_noted, node.outputs))
            found.append((_noted(node), node.op_type, attributes, tuple(node.inputs), made))
    return found


def _noted(part: ir.Graph | ir.Node | ir.Value) -> tuple[Any, ...]:
    return part, part.name, dict(part.metadata_props), part.doc_string


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
    take_name(last, name)
    take_name(new[-1], new[-1].name)


def remove_identities(model: ir.Model) -> None:
    """Let what reads an Identity read its source, in place.

    An output of a graph keeps its name. Where it is no value of its own without the Identity, that stays: copies of inputs,
    of initializers, of values of the graph around, and of another output. ONNX Runtime computes a Scan wrongly that gives
    one value twice, and a model that does has lost the name of an output.
    """
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.op_type == "Identity" and not node.domain else None
        if source is None:
            continue
        copy, maker = node.outputs[0], source.producer()
        given = copy.is_graph_output()
        apart = maker is None or maker.graph is not node.graph or source.is_graph_output()
        if given and apart:
            continue
        if maker is not None:
            _describe_as(source, copy)
        ir.convenience.replace_all_uses_with(copy, source, replace_graph_outputs=True)
        if given:
            take_name(source, copy.name)
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def _describe_as(value: ir.Value, copy: ir.Value) -> None:
    """Take over what is known of the type and the sizes of a copy alone."""
    value.type = value.type or copy.type
    if value.shape is None or copy.shape is None or len(value.shape) != len(copy.shape):
        value.shape = value.shape or copy.shape
        return
    known = zip(value.shape, copy.shape, strict=True)
    value.shape = ir.Shape(
        [
            other if isinstance(own, ir.SymbolicDim) and own.value is None else own
            for own, other in known
        ]
    )
