"""Tensors that stand in another file's data, taken into the graph.

Graphs that were cloned share their tensors. onnx_ir's own `load_to_model` closes the memory map of each tensor
that it reads: it fails where another graph, or an array of it, still looks at the map.
"""

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["read_attribute_data", "read_initializer_data"]


def read_initializer_data(model: ir.Model) -> None:
    """Let initializers hold what they name in another file, in place.

    Ensures: no initializer of the graph or of a body is external. Tensors that other graphs share are as they were.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def read_attribute_data(model: ir.Model) -> None:
    """Let tensors of attributes hold what they name in another file, in place.

    Ensures: no attribute of a node, in bodies and functions too, is external.
    """
    for node in _nodes(model):
        for name, attribute in list(node.attributes.items()):
            if attribute.type != ir.AttributeType.TENSOR or attribute.is_ref():
                continue
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.ExternalTensor):
                held = ir.tensor(tensor.numpy(), name=tensor.name)
                node.attributes[name] = ir.AttrTensor(name, held)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
