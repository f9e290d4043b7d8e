"""Make initializers."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["add_initializer", "initializer"]


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
