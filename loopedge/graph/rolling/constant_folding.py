"""What depends on stored values alone, computed once, in one session of ONNX Runtime."""

import logging
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from loopedge.graph.editing import initializer
from loopedge.graph.naming import free_name
from loopedge.graph.rolling.common_nodes import has_body, is_random
from loopedge.graph.rolling.content import is_constant, sizes

__all__ = ["fold_constants"]

log = logging.getLogger(__name__)

LARGE_BYTES = 1 << 20
"""Results above this size are folded only where they are no larger than what they are made of."""
SMALL_BYTES = 4096
"""Stored values up to this size are moved by computing them: no memory is worth saving there."""
MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
FOLDED_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
"""What NumPy and ONNX Runtime hand each other without a copy."""


def fold_constants(model: ir.Model) -> bool:
    """Replace what nodes of the main graph compute of stored values alone by its value, in place.

    Requires: nodes stand in an order in which they can run; types and shapes are noted as far as they are known.

    Ensures: what is random, dequantizes, holds a body or takes more memory than it was made of stays.

    Returns:
        Whether anything changed.
    """
    nodes = _constant_nodes(model.graph)
    ends = _read_outside(nodes)
    if not ends:
        return False
    try:
        arrays = _run(model, nodes, ends)
    except Exception as error:  # what ONNX Runtime raises has no common class
        log.info("constants were not folded: %s", error)
        return False
    _replace(model.graph, ends, arrays)
    return True


def _constant_nodes(graph: ir.Graph) -> list[ir.Node]:
    made: set[ir.Value] = set()
    nodes = []
    for node in graph:
        if all(value is None or value in made or is_constant(value) for value in node.inputs) and (
            _may_fold(node, made)
        ):
            nodes.append(node)
            made.update(node.outputs)
    return nodes


def _may_fold(node: ir.Node, made: set[ir.Value]) -> bool:
    read = [value for value in node.inputs if value is not None]
    if has_body(node) or is_random(node) or "Dequantize" in node.op_type or not read:
        return False
    if any(value.is_graph_output() for value in node.outputs):
        return False
    if any(value.dtype not in FOLDED_TYPES for value in read):
        return False
    taken = [_bytes(value) for value in read]
    if node.op_type in MOVES and read[0] not in made and (taken[0] or 0) > SMALL_BYTES:
        return False
    for value in node.outputs:
        given = _bytes(value)
        if given is None:
            return not value.name or value.dtype in FOLDED_TYPES
        if given > LARGE_BYTES and given > sum(each or 0 for each in taken):
            return False
    return True


def _bytes(value: ir.Value) -> int | None:
    """Return what a value takes; None where it is not known."""
    if value.const_value is not None:
        return int(value.const_value.nbytes)
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    size = math.prod(value.shape.numpy())
    return (size * value.dtype.bitwidth + 7) // 8


def _read_outside(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    inside = set(nodes)
    return [
        value
        for node in nodes
        for value in node.outputs
        if any(user not in inside for user in value.consumers())
    ]


def _run(
    model: ir.Model, nodes: list[ir.Node], ends: list[ir.Value]
) -> list[npt.NDArray[np.generic]]:
    """Compute values in a session of their own; the stored ones are handed to it as they lie in memory."""
    import onnxruntime as ort

    read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    stored = {
        value.name or "": value.const_value for value in read if value.const_value is not None
    }
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "constants",
        [
            onnx.helper.make_tensor_value_info(name, int(tensor.dtype), sizes(tensor))
            for name, tensor in stored.items()
        ],
        [onnx.ValueInfoProto(name=value.name) for value in ends],
    )
    opsets = [onnx.helper.make_opsetid(*item) for item in model.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: tensor.numpy() for name, tensor in stored.items()}
    arrays: list[npt.NDArray[np.generic]] = session.run(None, feeds)
    for tensor in stored.values():
        if isinstance(tensor, ir.ExternalTensor):
            tensor.release()
    return arrays


def _replace(graph: ir.Graph, ends: list[ir.Value], arrays: list[npt.NDArray[np.generic]]) -> None:
    taken = {*graph.initializers, *(value.name for value in graph.inputs)}
    for value, array in zip(ends, arrays, strict=True):
        name = free_name(f"{value.name}.folded", taken)
        taken.add(name)
        made = initializer(name, np.asarray(array))
        graph.register_initializer(made)
        ir.convenience.replace_all_uses_with(value, made)
