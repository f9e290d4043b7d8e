"""Find the weights of a graph and the linears that read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.operators import LINEARS, WEIGHT_PLACES

__all__ = [
    "CAST_SUFFIX",
    "OWN_PREFIX",
    "RANGE_PREFIX",
    "TABLE_PREFIX",
    "Linear",
    "all_initializers",
    "is_weight",
    "linears",
    "stored_bytes",
    "stored_weight",
    "weight_bytes",
    "weights_read",
]

TABLE_PREFIX = "timestep."
"""Initializers under this prefix are timestep tables: they differ by iteration and tie nothing."""

RANGE_PREFIX = "range."
"""Initializers under this prefix are calibrated scales and zero points of activations."""

CAST_SUFFIX = ".float32"
"""A weight ``w`` that is stored in float16 is read through a Cast called ``w.float32``."""

OWN_PREFIX = "loopedge."
"""Initializers under this prefix are loop counts, flags and ones that the exporter adds."""

NO_WEIGHT = (TABLE_PREFIX, RANGE_PREFIX, OWN_PREFIX)


@dataclass(frozen=True, slots=True)
class Linear:
    """A MatMul or Gemm with a stored float weight of two dimensions.

    ``index`` is the weight's place among the inputs: 1 for x @ W with W [in, out], 0 for the
    transposed product of a tied head, W [out, in] @ x^T.
    """

    node: ir.Node
    weight: ir.Value
    index: int


def is_weight(value: ir.Value) -> bool:
    """Tell a weight from shape constants, loop counts and timestep tables."""
    tensor, name = value.const_value, value.name or ""
    if tensor is None or name.startswith(NO_WEIGHT) or tensor.size < 2:
        return False
    return tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8


def stored_weight(value: ir.Value | None) -> ir.Value | None:
    """Return the weight that a node reads: the value itself, or what stands behind its Cast.

    A weight that is stored in float16 (`loopedge.graph.passes.storage`) is read through a Cast to float32.
    """
    if value is None or is_weight(value):
        return value
    cast = value.producer()
    if cast is None or cast.op_type != "Cast" or cast.domain:
        return None
    source = cast.inputs[0]
    narrow = source is not None and source.dtype == ir.DataType.FLOAT16 and is_weight(source)
    return source if narrow and value.dtype in {ir.DataType.FLOAT, None} else None


def weights_read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the weights that a node computes with; the Cast that widens one does not."""
    if any(stored_weight(output) is not None for output in node.outputs):
        return
    for value in node.inputs:
        weight = stored_weight(value)
        if weight is not None:
            yield weight


def weight_bytes(model: ir.Model) -> int:
    """Return the bytes of all weights as stored: each once, without the timestep tables."""
    return sum(stored_bytes(value) for value in all_initializers(model) if is_weight(value))


def linears(model: ir.Model) -> list[Linear]:
    """List the linears of the main graph and of every Loop body, in the order of the graph."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type not in LINEARS or node.domain:
            continue
        for index in WEIGHT_PLACES[node.op_type]:
            value = stored_weight(node.inputs[index]) or node.inputs[index]
            if value is None or value.const_value is None or len(value.const_value.shape) != 2:
                continue
            if value.const_value.dtype.is_floating_point():
                found.append(Linear(node, value, index))
                break
    return found


def all_initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the initializers of the main graph and of every body."""
    yield from model.graph.initializers.values()
    for graph in model.graph.subgraphs():
        yield from graph.initializers.values()


def stored_bytes(value: ir.Value) -> int:
    """Return the bytes of an initializer as stored; 0 where it holds no value."""
    return 0 if value.const_value is None else int(value.const_value.nbytes)
