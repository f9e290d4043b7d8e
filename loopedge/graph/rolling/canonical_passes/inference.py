"""Types and shapes of the values of a graph, found without its weights."""

import logging
from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from loopedge.graph.naming import keep_names_apart
from loopedge.graph.rolling.canonical_passes.stand_ins import add_stand_ins
from loopedge.graph.rolling.canonical_passes.tensors import sizes

__all__ = ["infer"]

log = logging.getLogger(__name__)

SHAPE_LIKE_BYTES = 1024
"""Stored values up to this size may be shapes, axes and counts that decide what other values look like."""


def infer(model: ir.Model) -> None:
    """Note the type and the shape of each value that they can be told of, in place.

    Free sizes keep the names of the inputs; others get names that the inference makes up. What the graph said of a value is
    kept where nothing else is known, but for names of sizes: they may be of another graph.

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
    _take(model.graph, found.graph, _named_sizes(model.graph.inputs))


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
        add_stand_ins(graph, node)
        if node.domain:  # what is not inferred is taken from what the graph says
            graph.value_info.extend(_said(node))
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.outputs)
    opsets = [onnx.helper.make_opsetid(*item) for item in model.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    proto.functions.extend(map(ir.serde.serialize_function, model.functions.values()))
    return proto


def _said(node: ir.Node) -> Iterator[onnx.ValueInfoProto]:
    for value in node.outputs:
        if value.name and value.type is not None:
            said = ir.serde.serialize_value(value)
            for dim in said.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")
            yield said


def _named_sizes(values: Iterable[ir.Value]) -> frozenset[str | None]:
    dims = (dim for value in values if value.shape is not None for dim in value.shape)
    return frozenset(dim.value for dim in dims if not isinstance(dim, int))


def _take(graph: ir.Graph, found: onnx.GraphProto, names: frozenset[str | None]) -> None:
    """Note what was found of the values of a graph and of its bodies."""
    known = {info.name: info for info in (*found.value_info, *found.output)}
    bodies = {node.name: node for node in found.node if node.name}
    for node in graph:
        for value in node.outputs:
            info = known.get(value.name or "")
            if info is not None and info.type.WhichOneof("value"):
                _note(value, info)
            elif value.shape is not None:
                value.shape = ir.Shape(
                    [
                        dim if isinstance(dim, int) or dim.value in names else None
                        for dim in value.shape
                    ]
                )
        same = bodies.get(node.name or "")
        for attribute in same.attribute if same is not None else ():
            body = node.attributes.get(attribute.name)
            if body is not None and body.type == ir.AttributeType.GRAPH:
                _take(body.as_graph(), attribute.g, names)


def _note(value: ir.Value, info: onnx.ValueInfoProto) -> None:
    if info.type.WhichOneof("value") != "tensor_type":
        value.type = ir.serde.deserialize_type_proto_for_type(info.type)
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
