"""Store float weights in half the bytes: float16 in the file, float32 where they are computed with.

A weight becomes a float16 initializer behind one Cast in the main graph, outside every Loop. ONNX
Runtime folds that Cast when it loads the file, so that the products see float32 as before. A table
that is gathered stays float16 and mapped: the Cast comes after the Gather, on the rows alone.
"""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import initializer, make_node
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.metadata import PREFIX
from loopedge.graph.weights import CAST_SUFFIX, TABLE_PREFIX

__all__ = [
    "is_float16_storable",
    "restore_float32",
    "store_float16",
    "widened_tables",
]

FLOAT16_MAX = 65504.0
MAX_ROW_ERROR = 2.0**-9
"""Most that rounding may move a row, against its norm; a row of normal numbers moves by 2^-12."""


def store_float16(model: ir.Model) -> list[str]:
    """Store the weights of a float32 graph in float16, in place, where that loses nothing.

    Requires: the weights are initializers of the main graph, and rounded: a tensor whose values do not all survive
    the way to float16 and back stays as it is.

    Ensures: exactly the same computation; a weight is stored once and read through one Cast, a table behind its
    Gather.

    Args:
        model: Loop or unrolled form.

    Returns:
        The names of the weights that became float16. Timestep tables, and what has less than two
        dimensions (biases, gains), stay float32: they are small.
    """
    stored = []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if (
            tensor is None
            or tensor.dtype != ir.DataType.FLOAT
            or len(tensor.shape) < 2
            or name.startswith(TABLE_PREFIX)
            or value.is_graph_output()
        ):
            continue
        narrow = _rounded(tensor)
        if narrow is None:
            continue
        _narrow(model.graph, value, narrow)
        stored.append(name)
    return stored


def _rounded(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    """Return a tensor in float16; None where that would change it, or where one that is not read yet shall not be."""
    if isinstance(tensor, LazyWeight):
        return tensor.rounded() if tensor.rounds else None
    array = tensor.numpy()
    with np.errstate(over="ignore", under="ignore"):
        narrow = array.astype(np.float16)
    return ir.tensor(narrow, name=tensor.name) if np.array_equal(narrow, array) else None


def is_float16_storable(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str | None:
    """Tell why a weight must stay float32, or None where float16 holds it.

    Args:
        array: float32, two dimensions or more; a row is what shares index 0.

    Returns:
        The reason: a value past 65504, or a row whose values are so small that rounding moves it by
        more than 2^-9 of its norm (a row of normal numbers moves by 2^-12).
    """
    if array.size == 0:
        return None
    largest = float(np.max(np.abs(array), initial=0.0))
    if not largest <= FLOAT16_MAX:
        return f"its largest value is {largest:.3g}, float16 ends at {FLOAT16_MAX:.0f}"
    rows = array.reshape(array.shape[0], -1).astype(np.float64)
    with np.errstate(under="ignore"):
        moved = np.linalg.norm(rows - rows.astype(np.float16), axis=1)
    norms = np.linalg.norm(rows, axis=1)
    worst = int(np.argmax(moved - MAX_ROW_ERROR * norms)) if len(rows) else 0
    if len(rows) and moved[worst] > MAX_ROW_ERROR * norms[worst]:
        return (
            f"row {worst} is too small for float16: rounding moves it by "
            f"{moved[worst] / norms[worst]:.1%}"
        )
    return None


def restore_float32(model: ir.Model) -> bool:
    """Undo `store_float16`, in place.

    Requires: nothing.

    Ensures: exactly the same computation; weights are float32 initializers without Casts, and the metadata says
    nothing of float16.

    Returns:
        Whether anything changed.
    """
    changed = False
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT16 or not _is_widened(value):
            continue
        wide = initializer(name, ir.tensor(tensor.numpy().astype(np.float32), name=name))
        del model.graph.initializers[name]
        for node, index in list(value.uses()):
            if node.op_type == "Cast":
                ir.convenience.replace_all_uses_with(node.outputs[0], wide)
                _remove(node)
                continue
            node.replace_input_with(index, wide)
            gathered = node.outputs[0]
            gathered.type = ir.TensorType(ir.DataType.FLOAT)
            for cast, _ in list(gathered.uses()):
                ir.convenience.replace_all_uses_with(cast.outputs[0], gathered)
                _remove(cast)
        model.graph.register_initializer(wide)
        changed = True
    if changed:
        model.metadata_props.pop(f"{PREFIX}storage", None)
    return changed


def widened_tables(model: ir.Model) -> dict[str, int]:
    """Return the float16 tables that are gathered and multiplied too, and the bytes of float32 copies."""
    found = {}
    for name, value in model.graph.initializers.items():
        kinds = {_gathers(node, index) for node, index in value.uses()}
        if value.dtype == ir.DataType.FLOAT16 and kinds == {True, False} and value.const_value:
            found[name] = 2 * int(value.const_value.nbytes)
    return found


def _is_widened(value: ir.Value) -> bool:
    """Tell whether all that reads a weight is a Cast to float32, or a Gather with one behind it."""
    readers: list[ir.Node] = []
    for node, index in value.uses():
        if _gathers(node, index) and not node.outputs[0].is_graph_output():
            readers += [reader for reader, _ in node.outputs[0].uses()]
        else:
            readers.append(node)
    return bool(readers) and all(_widens(node) for node in readers)


def _widens(node: ir.Node) -> bool:
    return (
        node.op_type == "Cast"
        and not node.domain
        and node.attributes["to"].as_int() == ir.DataType.FLOAT
        and not node.outputs[0].is_graph_output()
    )


def _narrow(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Let a float16 initializer take the place of ``value``, with Casts where it is read."""
    readers = list(value.uses())
    value.const_value = tensor
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    multiplied = [(node, index) for node, index in readers if not _gathers(node, index)]
    for node, index in readers:
        if _gathers(node, index):
            _widen_rows(node)
    if multiplied:
        cast = make_node("Cast", [value], f"{value.name}{CAST_SUFFIX}", {"to": ir.DataType.FLOAT})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        graph.insert_before(graph[0], cast)
        for node, index in multiplied:
            node.replace_input_with(index, cast.outputs[0])


def _gathers(node: ir.Node, index: int) -> bool:
    return node.op_type == "Gather" and not node.domain and index == 0


def _widen_rows(gather: ir.Node) -> None:
    rows = gather.outputs[0]
    cast = make_node("Cast", [rows], f"{gather.name}{CAST_SUFFIX}", {"to": ir.DataType.FLOAT})
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), rows.shape
    ir.convenience.replace_all_uses_with(rows, cast.outputs[0], replace_graph_outputs=True)
    cast.replace_input_with(0, rows)
    rows.type = ir.TensorType(ir.DataType.FLOAT16)
    if gather.graph is not None:
        gather.graph.insert_after(gather, cast)


def _remove(node: ir.Node) -> None:
    if node.graph is not None:
        node.graph.remove(node, safe=True)
