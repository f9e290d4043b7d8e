"""Build the untied twin: the same graph with every iteration given its own copy of the weights.

It is the baseline that shows what tying saves. The copies differ in a few bits, so that nothing
(a file format, a runtime's constant sharing, the kernel's page merging) can store them once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import add_initializer
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.graph.unrolling import find_core, unroll
from loopedge.graph.weights import core_weights, iteration_of

__all__ = ["untie"]

RELATIVE_CHANGE = 1e-4
"""Of a float copy: far above float32 resolution, far below what changes an output."""


def untie(model: ir.Model, loops: int | None = None) -> ir.Model:
    """Return the unrolled graph whose iterations share no weight of the core.

    Args:
        model: Loop or unrolled form, float or quantized. Not modified.
        loops: Iterations of the twin; default: the count in the metadata. The unrolled form has
            its own.

    Returns:
        A new model; the copy of weight ``w`` for iteration t is called ``w.<t>``. Weights outside
        the core and the timestep tables stay as they are.

    Raises:
        InputError: The graph has no core that is known to be tied.
    """
    twin = unroll(model, loops) if find_core(model) is not None else model.clone()
    names = core_weights(twin)
    if not names:
        raise InputError(
            "the graph has no core whose weights are known to be tied",
            hint="profile a model that loopedge exported, or leave out --untied",
        )
    graph = twin.graph
    for node in list(graph):
        t = iteration_of(node)
        if t is None:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.name not in names or value.const_value is None:
                continue
            copy = f"{value.name}.{t}"
            if copy not in graph.initializers:
                array = value.const_value.numpy()
                add_initializer(graph, copy, _distinct(array, t))
            node.replace_input_with(index, graph.initializers[copy])
    for name in names:
        if not graph.initializers[name].uses():
            del graph.initializers[name]
    metadata = read_metadata(twin.metadata_props)
    if metadata is not None:
        write_metadata(metadata.model_copy(update={"twin": "untied"}), twin.metadata_props)
    return twin


def _distinct(array: npt.NDArray[Any], t: int) -> npt.NDArray[Any]:
    """Return a copy that differs from those of all other iterations, but hardly in value."""
    if np.issubdtype(array.dtype, np.floating):
        return (array * (1 + RELATIVE_CHANGE * (t + 1))).astype(array.dtype)
    # Integers: write t + 1 in binary into the lowest bits of each run of 32 values.
    copy = array.copy()
    flat = copy.reshape(-1)
    for bit in range(32):
        if (t + 1) >> bit & 1:
            flat[bit::32] ^= 1
    return copy
