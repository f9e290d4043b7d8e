"""Fold the gate of a branch into the scale that its int8 product is multiplied by anyway.

Timestep encoding ends each branch in a product with a row of the table: y = gate[t] * (x @ W). In int8 the
product is scaled per output channel; scale * gate is as exact, a table of the same size, and one operator
less over the whole state (benchmarks/int8/choices.py).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.names import loop_name, loop_value_name
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.naming import take_name
from loopedge.graph.weights import RANGE_PREFIX, TABLE_PREFIX

__all__ = ["fold_gates"]

Array = npt.NDArray[Any]
WEIGHT_SCALE = 3
"""Place of the weight's scales among the inputs of MatMulIntegerToFloat."""


def fold_gates(model: ir.Model) -> dict[str, str]:
    """Fold the gates that follow int8 products, in place.

    A gate stays where something else reads the product, or where a row of it is zero throughout: that
    would hide what the product gives from every check.

    Args:
        model: A graph of static int8 with MatMulIntegerToFloat.

    Returns:
        The values that products gave and, by them, the gated ones that they give now, named as in the
        loop form.
    """
    moved: dict[str, str] = {}
    for node in list(model.graph.all_nodes()):
        found = _gated(node)
        if found is None:
            continue
        product, row, rows, scales = found
        before, after = (
            loop_value_name(product, v.name or "") for v in (product.outputs[0], node.outputs[0])
        )
        table = add_initializer(
            model.graph,
            f"{RANGE_PREFIX}{loop_name(product)}.gated_scale",
            np.ascontiguousarray(rows * scales, np.float32),
        )
        pick = make_node(
            "Gather", [table, row.inputs[1]], f"{product.name}.gated_scale", {"axis": 0}
        )
        pick.outputs[0].type, pick.outputs[0].shape = table.type, ir.Shape(table.shape[1:])  # type: ignore[index]
        insert_before(product, pick)
        product.replace_input_with(WEIGHT_SCALE, pick.outputs[0])
        _take_over(product, node)
        moved[before] = after
        if not row.outputs[0].uses() and row.graph is not None:
            row.graph.remove(row, safe=True)
    _drop_unread(model.graph)
    return moved


def _gated(node: ir.Node) -> tuple[ir.Node, ir.Node, Array, Array] | None:
    """Return the int8 product behind a gate, the Gather of the gate's row, all rows, the scales."""
    if node.op_type != "Mul" or node.domain or len(node.inputs) != 2:
        return None
    for value, gate in (node.inputs, tuple(reversed(node.inputs))):
        product = None if value is None else value.producer()
        row = None if gate is None else gate.producer()
        if product is None or row is None or product.op_type != "MatMulIntegerToFloat":
            continue
        table, scale = row.inputs[0], product.inputs[WEIGHT_SCALE]
        if row.op_type != "Gather" or table is None or scale is None:
            continue
        if table.const_value is None or scale.const_value is None:
            continue
        if not (table.name or "").startswith(TABLE_PREFIX) or len(product.outputs[0].uses()) != 1:
            continue
        rows, scales = table.const_value.numpy(), scale.const_value.numpy()
        if rows.ndim == 2 and rows.shape[1:] == scales.shape and rows.any(axis=1).all():
            return product, row, rows, scales
    return None


def _take_over(product: ir.Node, gate: ir.Node) -> None:
    """Let a product give what its gate gave, under that name."""
    old, new = gate.outputs[0], product.outputs[0]
    name, graph = old.name, gate.graph
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if graph is not None:
        graph.remove(gate, safe=True)
    take_name(new, name)


def _drop_unread(graph: ir.Graph) -> None:
    """Drop the gate tables and the scales that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and (name.startswith(TABLE_PREFIX) or name.endswith(".scale")):
            del graph.initializers[name]
