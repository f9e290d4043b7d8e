"""Timestep rows that are matrices, as int8: each iteration has a weight of its own, picked by its number.

A table (rows, in, out), as the pairs of LoRA per loop or an attention's weights per loop, is stored as s8 with one scale per
row and output channel; both are gathered, and the product is an integer one. No kernel packs a weight that changes,
still it pays (benchmarks/int8/matrix_rows.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.integer_weights.channels import INT8_LIMIT, REDUCED_LIMIT, quantize_weight
from loopedge.graph.integer_weights.embedding_rows import SMALLEST_BYTES

__all__ = ["MatrixRows", "RowLinear", "find_matrix_rows", "reasons_for_rows", "stored_rows"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RowLinear:
    """A product with a gathered matrix; ``turned``: a Transpose stands between."""

    node: ir.Node
    gather: ir.Node
    turned: bool


@dataclass(frozen=True, slots=True)
class MatrixRows:
    """A float32 table (rows, in, out), or (rows, out, in) where it is turned, and all products that read a row of it."""

    table: ir.Value
    linears: list[RowLinear]

    @property
    def reason_for_float(self) -> str | None:
        """Say why a small table should stay in float; None where it should not."""
        tensor = self.table.const_value
        if tensor is not None and tensor.nbytes < SMALLEST_BYTES:
            return f"{self.table.name} takes {tensor.nbytes} bytes, below {SMALLEST_BYTES}"
        return None

    def store(self, limit: int = INT8_LIMIT) -> dict[ir.Node, tuple[ir.Value, ir.Value]]:
        """Store the table as s8 (rows, in, out) under its name, in place.

        Args:
            limit: Largest magnitude of a stored value.

        Returns:
            By product, its s8 weight [in, out] and the scales (out,).
        """
        table, graph = self.table, self.table.graph
        if graph is None or table.const_value is None:
            raise ValueError(f"{table.name} is not a stored table")
        floats = table.const_value.numpy()
        values, scales = _rounded(floats.swapaxes(1, 2) if self._turned else floats, limit)
        table.const_value = ir.tensor(values, name=table.name)
        table.type, table.shape = ir.TensorType(ir.DataType.INT8), ir.Shape(values.shape)
        scale = add_initializer(graph, f"{table.name}.scale", scales)
        picked = {gather: self._pick(gather, scale) for gather in self._gathers}
        if self._turned:
            self._read_as_stored()
        return {item.node: picked[item.gather] for item in self.linears}

    def _read_as_stored(self) -> None:
        """Let the products read the rows themselves, which are turned in the table now."""
        for item in self.linears:
            transpose = item.node.inputs[1].producer() if item.node.inputs[1] is not None else None
            item.node.replace_input_with(1, item.gather.outputs[0])
            if transpose is not None and not transpose.outputs[0].uses() and transpose.graph:
                transpose.graph.remove(transpose, safe=True)

    @property
    def _turned(self) -> bool:
        return self.linears[0].turned

    @property
    def _gathers(self) -> list[ir.Node]:
        return list(dict.fromkeys(item.gather for item in self.linears))

    def _pick(self, gather: ir.Node, scale: ir.Value) -> tuple[ir.Value, ir.Value]:
        row = gather.outputs[0]
        row.type = self.table.type
        row.shape = None if self.table.shape is None else ir.Shape(self.table.shape[1:])
        name = f"{gather.name}.scale"
        scales = make_node("Gather", [scale, gather.inputs[1]], name, {"axis": 0})
        scales.outputs[0].type = scale.type
        scales.outputs[0].shape = None if scale.shape is None else ir.Shape(scale.shape[1:])
        if gather.graph is not None:
            gather.graph.insert_after(gather, scales)
        return row, scales.outputs[0]


def find_matrix_rows(model: ir.Model) -> list[MatrixRows]:
    """List the tables of matrices of which single rows are multiplied and nothing else is read."""
    found = []
    for table in list(model.graph.initializers.values()):
        tensor = table.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 3:
            continue
        linears = [item for node, place in table.uses() for item in _linears_of(node, place)]
        gathers = {item.gather for item in linears}
        whole = {node for node, _ in table.uses()} == gathers and not table.is_graph_output()
        if linears and whole and len({item.turned for item in linears}) == 1:
            found.append(MatrixRows(table, linears))
    return found


def stored_rows(table: Array, stored: Array) -> tuple[Array, Array]:
    """Round another table as a stored one was.

    Args:
        table: float32 (rows, in, out), or (rows, out, in) where the stored one was turned.
        stored: int8 (rows, in, out).

    Returns:
        int8 (rows, in, out) and its scales, float32 (rows, out).
    """
    limit = REDUCED_LIMIT if np.abs(stored.astype(np.int16)).max() <= REDUCED_LIMIT else INT8_LIMIT
    return _rounded(table if table.shape == stored.shape else table.swapaxes(1, 2), limit)


def _rounded(table: Array, limit: int) -> tuple[Array, Array]:
    parts = [quantize_weight(row, limit=limit) for row in table]
    return np.stack([values for values, _ in parts]), np.stack([scales for _, scales in parts])


def _linears_of(gather: ir.Node, place: int) -> list[RowLinear]:
    """Return the products that alone read one gathered matrix; none where something else does."""
    index = gather.inputs[1] if gather.op_type == "Gather" and place == 0 else None
    if gather.domain or index is None or index.shape is None or len(index.shape) != 0:
        return []
    if gather.attributes.get_int("axis", 0) != 0:
        return []
    found: list[RowLinear] = []
    row = gather.outputs[0]
    for node, at in row.uses():
        turned = node.op_type == "Transpose" and not node.domain and _swaps(node)
        users = list(node.outputs[0].uses()) if turned else [(node, at)]
        for user, side in users:
            if user.op_type != "MatMul" or user.domain or side != 1:
                return []
            found.append(RowLinear(user, gather, turned))
        if turned and node.outputs[0].is_graph_output():
            return []
    mixed = len({item.turned for item in found}) > 1
    return [] if mixed or row.is_graph_output() else found


def _swaps(node: ir.Node) -> bool:
    return list(node.attributes.get_ints("perm", [1, 0])) == [1, 0]


def reasons_for_rows(
    tables: list[MatrixRows], kept: Mapping[str, str], general: str | None
) -> dict[ir.Value, str]:
    """Say which tables stay in float, by the table, and why.

    Args:
        tables: Of `find_matrix_rows`.
        kept: Products to leave in float, by node name, with the reason.
        general: Why no table can be stored; None: they can.
    """
    reasons = {}
    for rows in tables:
        names = [item.node.name or "" for item in rows.linears]
        asked = next((kept[name] for name in names if name in kept), None)
        reason = asked or rows.reason_for_float or general
        if reason is not None:
            reasons[rows.table] = reason
    return reasons
