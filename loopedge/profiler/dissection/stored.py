"""Which initializers of the graph that runs ONNX Runtime holds in memory rather than maps."""

from pathlib import Path

import onnx

from loopedge.artifact.reading.onnx_file import parse_onnx

__all__ = ["copied_bytes"]


def copied_bytes(optimized: Path) -> int:
    """Return the bytes of the initializers that are in memory as they are stored.

    Args:
        optimized: The graph as ONNX Runtime wrote it after its optimizations. It names the file of what
            it maps; what stood inside the model, and what an optimization made (a weight widened from
            float16), it writes out.
    """
    model = parse_onnx(optimized)
    return _bytes(model.graph)


def _bytes(graph: onnx.GraphProto) -> int:
    own = sum(
        _size(tensor)
        for tensor in graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    )
    return own + sum(
        _bytes(inner)
        for node in graph.node
        for attribute in node.attribute
        for inner in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    )


def _size(tensor: onnx.TensorProto) -> int:
    size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    for axis in tensor.dims:
        size *= axis
    return size
