"""Captured graphs taken apart: their nodes freed, their weights gathered, each stored once."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.exporter.capture.capture import WRAPPER_PREFIX
from loopedge.exporter.capture.input_axes import AxisNames
from loopedge.graph.core.pieces import Piece
from loopedge.graph.editing import initializer
from loopedge.graph.metadata import ITERATIONS_OUTPUT, LOOPS_INPUT, TOLERANCE_INPUT
from loopedge.graph.weights import OWN_PREFIX, RANGE_PREFIX, TABLE_PREFIX

__all__ = ["Weights", "name_dims", "take_apart"]

RESERVED = {ITERATIONS_OUTPUT, LOOPS_INPUT, TOLERANCE_INPUT, "iteration", "condition", "done"}
RESERVED_PREFIXES = (TABLE_PREFIX, RANGE_PREFIX, OWN_PREFIX, "state.", "core/")
"""Names that the assembled graph uses itself."""


class Weights:
    """Initializers of the main graph, each distinct torch tensor once."""

    def __init__(self) -> None:
        self.values: dict[str, ir.Value] = {}
        self._by_storage: dict[tuple[object, ...], ir.Value] = {}

    def add(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return the initializer for ``tensor``, shared when its storage was seen before."""
        key = _storage_key(tensor)
        if key in self._by_storage:
            return self._by_storage[key]
        known = self.values.get(name)
        if known is not None and known.const_value is not None:
            if not np.array_equal(known.const_value.numpy(), tensor.numpy()):
                raise InputError(f"two parts of the model hold different values for {name}")
            return known
        value = initializer(name, tensor)
        self.values[name] = value
        self._by_storage[key] = value
        return value

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Return an initializer with the values of ``array``."""
        return self.add(name, ir.tensor(array, name=name))


def _storage_key(tensor: ir.TensorProtocol) -> tuple[object, ...]:
    raw = getattr(tensor, "raw", None)
    pointer = getattr(raw, "data_ptr", None)
    if pointer is None or raw is None:
        return (id(tensor),)
    return (pointer(), tuple(raw.shape), tuple(raw.stride()), str(raw.dtype))


def take_apart(model: ir.Model, prefix: str, weights: Weights) -> Piece:
    """Free the nodes of a captured graph, named for its part, and gather its weights."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        name = _weight_name(value.name or "", prefix)
        if value.const_value is None:
            raise InputError(f"{name} has no value in the captured {prefix}")
        shared = weights.add(name, value.const_value)
        ir.convenience.replace_all_uses_with(value, shared, replace_graph_outputs=True)
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    graph.initializers.clear()
    graph.inputs.clear()
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for node in nodes:
        node.name = f"{prefix}/{(node.name or node.op_type).removeprefix('node_')}"
        for output in node.outputs:
            output.name = f"{prefix}/{output.name}"
    return Piece(inputs, outputs, nodes)


def _weight_name(name: str, part: str) -> str:
    """Return what an initializer of a captured part is called.

    A weight has its name in PyTorch, unless the graph needs that name; a constant of the user's code,
    which PyTorch numbers per capture, is named for its part.
    """
    if not name.startswith(WRAPPER_PREFIX):
        return f"{part}/{name}"
    own = name.removeprefix(WRAPPER_PREFIX)
    return name if own in RESERVED or own.startswith(RESERVED_PREFIXES) else own


def name_dims(graph: ir.Graph, axes: tuple[AxisNames, ...]) -> None:
    """Give torch's symbols (s41, ...) the names of the axes they stand for, in a whole part."""
    names: dict[str, str] = {}
    for value, axis_names in zip(graph.inputs, axes, strict=False):
        for axis, name in axis_names.items():
            if value.shape is not None:
                names[str(value.shape[axis])] = name
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.shape is not None:
            value.shape = ir.Shape(
                [dim if isinstance(dim, int) else names.get(str(dim)) for dim in value.shape]
            )
