"""A session of ONNX Runtime that computes what nodes make of stored values."""

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from loopedge.graph.rolling.canonical_passes.tensors import sizes

__all__ = ["compute"]


def compute(
    model: ir.Model, nodes: list[ir.Node], ends: list[ir.Value]
) -> list[npt.NDArray[np.generic]]:
    """Return the values ``ends`` that nodes make of stored values.

    The stored ones are handed to the session as they lie in memory, or in the file that is mapped there.

    Args:
        model: Whose versions of operators count.
        nodes: In an order in which they can run.
        ends: Values that they make.

    Raises:
        Exception: ONNX Runtime cannot load or run them.
    """
    import onnxruntime as ort

    read = dict.fromkeys(value for node in nodes for value in node.inputs)
    stored = {
        value.name or "": value.const_value
        for value in read
        if value is not None and value.const_value is not None
    }
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    session = ort.InferenceSession(
        _proto(model, nodes, stored, ends), options, providers=["CPUExecutionProvider"]
    )
    try:
        feeds = {name: tensor.numpy() for name, tensor in stored.items()}
        arrays = session.run(None, feeds)
    finally:
        feeds = {}
        for tensor in stored.values():
            if isinstance(tensor, ir.ExternalTensor):
                tensor.release()
    return [np.asarray(array) for array in arrays]


def _proto(
    model: ir.Model,
    nodes: list[ir.Node],
    stored: dict[str, ir.TensorProtocol],
    ends: list[ir.Value],
) -> bytes:
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
    written: bytes = proto.SerializeToString()
    return written
