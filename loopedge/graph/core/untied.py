"""Build the untied twin: the same graph with every iteration given its own copy of the weights.

It is the baseline that shows what tying saves. The copies differ in a few bits, so that nothing
(a file format, a runtime's constant sharing, the kernel's page merging) can store them once.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import core_in_name, iteration_of
from loopedge.graph.core.scans.written_out import write_out_scans
from loopedge.graph.core.unrolling import unroll
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.metadata import write_metadata
from loopedge.graph.weights import (
    CAST_SUFFIX,
    linears,
    stored_weight,
    weight_bytes,
)
from loopedge.options import option

__all__ = ["untie"]

BITS = 32
"""Of the iteration number that each run of as many values carries: no two copies share a page."""

MOST_COPIES, MOST_BYTES = 256, 512 << 20
"""Of the weights of the core, where one of the two is exceeded."""

ULPS = 2
"""By how much a float value is changed, in units of its resolution: rounding cannot undo it."""


def untie(model: ir.Model, loops: int | None = None) -> ir.Model:
    """Return the unrolled graph whose iterations share no weight of a core.

    Requires: as `unroll`, or a graph whose linears share weights.

    Ensures: no two copies of a weight hold the same bytes, and none differs from the weight in more than rounding;
    the metadata says so.

    Args:
        model: Loop or unrolled form, float or quantized. Not modified.
        loops: Iterations of the twin; default: the count in the metadata, or the constant trip
            count of a Loop that loopedge did not write. The unrolled form has its own.

    Returns:
        A new model; the copy of weight ``w`` for iteration t is called ``w.<t>``, where t counts on from core to core.
        Weights outside the cores and the timestep tables stay as they are. In a graph without a Loop that loopedge
        did not write, every linear gets its own copy of a weight that it shares with others.

    Raises:
        InputError: The graph has no core that is known to be tied, or its loop count is unknown.
    """
    cores = Cores(model)
    counts = {name: loops or count for name, count in cores.iterations.items()}
    _check_size(model, sum(count or 1 for count in counts.values()))
    alone = next(iter(counts.values())) if len(counts) == 1 else loops
    twin = _with_iterations(model, cores, alone)
    names, graph, foreign = list(Cores(twin).weights), twin.graph, cores.metadata.foreign
    if names:
        _copy_per_iteration(graph, names)
    elif foreign and (shared := _shared_weights(twin)):
        names = shared
        _copy_per_reader(graph, names)
    else:
        raise InputError(
            "the graph has no core whose weights are known to be tied",
            hint=f"profile a model that loopedge exported, or leave out {option('untied')}",
        )
    for name in names:
        for cast in [node for node, _ in graph.initializers[name].uses()]:
            if cast.op_type == "Cast" and not cast.outputs[0].uses():
                graph.remove(cast, safe=True)
        if not graph.initializers[name].uses():
            del graph.initializers[name]
    metadata = Cores(twin).metadata.model_copy(update={"twin": "untied"})
    write_metadata(metadata, twin.metadata_props)
    return twin


def _with_iterations(model: ir.Model, cores: Cores, loops: int | None) -> ir.Model:
    """Return a copy of the graph whose iterations are written out."""
    if cores.loops:
        return unroll(model, loops)
    return write_out_scans(model, loops) if cores.scans else model.clone()


def _check_size(model: ir.Model, count: int) -> None:
    """Refuse copies that are many times what is stored: a loop count is a few bytes, and asks for any number.

    Raises:
        InputError: They take more than `MOST_BYTES`, and `MOST_COPIES` times the file's weights.
    """
    stored = weight_bytes(model)
    bytes_ = stored * count  # at most: weights outside the core have one copy
    if count > MOST_COPIES and bytes_ > MOST_BYTES:
        raise InputError(
            f"{count} loops with weights of their own take up to {bytes_:,} bytes, at most {MOST_COPIES} "
            f"copies, or {MOST_BYTES:,} bytes, are written",
            hint=f"leave out {option('untied')}, or name fewer loops",
        )


def _copy_per_iteration(graph: ir.Graph, names: Collection[str]) -> None:
    copies, numbers = _Copies(graph), dict[tuple[str | None, int], int]()
    for node in list(graph.all_nodes()):  # those of Loops inside the core too
        iteration = iteration_of(node)
        if iteration is None:
            continue
        place = core_in_name(node.name or ""), iteration
        t = numbers.setdefault(place, len(numbers))
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in names:
                node.replace_input_with(index, copies.of(value, t))
            elif (stored := stored_weight(value)) is not None and stored.name in names:
                node.replace_input_with(index, _widened_copy(copies, stored, value, t))


def _widened_copy(copies: "_Copies", stored: ir.Value, read: ir.Value | None, t: int) -> ir.Value:
    """Return the copy of a weight that is stored in float16, behind a Cast of its own."""
    copy, graph = copies.of(stored, t), copies.graph
    for node, _ in copy.uses():
        if node.op_type == "Cast":
            return node.outputs[0]
    cast = make_node("Cast", [copy], f"{copy.name}{CAST_SUFFIX}", {"to": ir.DataType.FLOAT})
    if read is not None:
        cast.outputs[0].type, cast.outputs[0].shape = read.type, read.shape
    graph.insert_before(graph[0], cast)
    return cast.outputs[0]


def _shared_weights(model: ir.Model) -> list[str]:
    """Return the weights of a foreign graph that several linears read."""
    readers = Counter(
        linear.weight for linear in linears(model) if linear.node.graph is model.graph
    )
    return sorted(weight.name or "" for weight, count in readers.items() if count > 1)


def _copy_per_reader(graph: ir.Graph, names: Collection[str]) -> None:
    seen: Counter[ir.Value] = Counter()
    copies = _Copies(graph)
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in names:
                node.replace_input_with(index, copies.of(value, seen[value]))
                seen[value] += 1


class _Copies:
    """Copies of the weights of a graph, each made when it is first asked for."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}

    def of(self, value: ir.Value, t: int) -> ir.Value:
        """Return the copy of a weight for iteration, or reader, ``t``."""
        if (value, t) not in self._made:
            if value.const_value is None:
                raise ValueError(f"{value.name} is not a stored weight")
            copy = add_initializer(self.graph, f"{value.name}.{t}", _distinct(value.const_value, t))
            self._made[value, t] = copy
        return self._made[value, t]


def _distinct(tensor: ir.TensorProtocol, t: int) -> ir.TensorProtocol:
    """Return a copy that differs from those of all other iterations, but hardly in value.

    t + 1 stands in binary in each run of `BITS` values: where a bit is set, a float is a few units
    of its resolution larger, the lowest bit of an integer is flipped.
    """
    array = tensor.numpy().copy()
    flat = array.reshape(-1)
    for bit in range(BITS):
        if (t + 1) >> bit & 1:
            change = _larger if tensor.dtype.is_floating_point() else _flipped
            flat[bit::BITS] = change(flat[bit::BITS])
    return ir.Tensor(array, dtype=tensor.dtype)


def _larger(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    limits = ml_dtypes.finfo(values.dtype)  # type: ignore[no-untyped-call]
    # A zero becomes the smallest normal number: subnormal ones would slow the products down.
    larger = values * (1 + ULPS * limits.eps)
    return np.where(values == 0, limits.tiny, larger).astype(values.dtype)


def _flipped(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    stored = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    flipped: npt.NDArray[Any] = (stored ^ stored.dtype.type(1)).view(values.dtype)
    return flipped
