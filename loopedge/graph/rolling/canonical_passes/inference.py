"""Types and shapes of the values of a graph, found without its weights."""

import logging

import onnx
import onnx_ir as ir

from loopedge.graph.naming import keep_names_apart
from loopedge.graph.rolling.canonical_passes.stand_ins import stand_ins
from loopedge.graph.rolling.canonical_passes.tensors import sizes

__all__ = ["infer"]

log = logging.getLogger(__name__)

SHAPE_LIKE_BYTES = 1024
"""Stored values up to this size may be shapes, axes and counts that decide what other values look like."""


def infer(model: ir.Model) -> None:
    """Note the type and the shape of each value that they can be told of, in place.

    Free sizes keep the names of the inputs; others get names that the inference makes up. What the graph said of a value is
    kept where nothing else is known.

    Requires: nodes stand in an order in which they can run.
    """
    keep_names_apart(model)  # values are known by their names
    proto = _without_weights(model)
    try:
        found = onnx.shape_inference.infer_shapes(
            proto, check_type=False, strict_mode=False, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        log.info("types and shapes were not inferred: %s", error)
        return
    _take(model.graph, found.graph)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """Return the graph with inputs in the place of its weights, and stand-ins for operators that ONNX does not know."""
    graph = onnx.GraphProto(name="graph")
    graph.input.extend(ir.serde.serialize_value(value) for value in model.graph.inputs)
    named = {value.name for value in model.graph.inputs}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= SHAPE_LIKE_BYTES:
            graph.initializer.append(ir.serde.serialize_tensor(tensor))
            graph.initializer[-1].name = name
        elif name not in named:
            graph.input.append(
                onnx.helper.make_tensor_value_info(name, int(tensor.dtype), sizes(tensor))
            )
    for node in model.graph:
        graph.node.extend(stand_ins(node))
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.outputs)
    opsets = [onnx.helper.make_opsetid(*item) for item in model.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _take(graph: ir.Graph, found: onnx.GraphProto) -> None:
    """Note what was found of the values of a graph and of its bodies."""
    known = {info.name: info for info in (*found.value_info, *found.output)}
    bodies = {node.name: node for node in found.node if node.name}
    outputs = set(graph.outputs)
    for node in graph:
        for value in node.outputs:
            info = known.get(value.name or "")
            if info is not None and value not in outputs:
                _note(value, info)
        for attribute in node.attributes.values():
            same = bodies.get(node.name or "")
            if attribute.type == ir.AttributeType.GRAPH and same is not None:
                for each in same.attribute:
                    if each.name == attribute.name:
                        _take(attribute.as_graph(), each.g)


def _note(value: ir.Value, info: onnx.ValueInfoProto) -> None:
    if info.type.WhichOneof("value") != "tensor_type":
        if value.type is None and info.type.WhichOneof("value"):
            made = ir.serde.deserialize_type_proto_for_type(info.type)
            value.type = made
        return
    tensor = info.type.tensor_type
    if tensor.elem_type:
        value.type = ir.TensorType(ir.DataType(tensor.elem_type))
    if tensor.HasField("shape"):
        value.shape = ir.Shape(
            [
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
                for dim in tensor.shape.dim
            ]
        )
