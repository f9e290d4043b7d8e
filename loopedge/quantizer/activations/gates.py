"""Fold the gate of a branch into the scale that its int8 product is multiplied by anyway.

Timestep encoding ends each branch in a product with a row of the table: y = gate[t] * (x @ W). In int8 the
product is scaled per output channel; scale * gate is as exact, a table of the same size, and one operator
less over the whole state (benchmarks/int8/choices.py).

In the body of a Loop such a product is written as MatMulInteger, Cast and Mul, whatever the operators of the others. ONNX Runtime fuses
them to the MatMulIntegerToFloat that would stand there otherwise. OpenVINO computes a MatMulIntegerToFloat whose
weight scale changes in a Loop with the scale of another iteration, and says nothing (tests/clients). With the memory
profile ``low``, whose sessions leave the optimizers out, the gate stays behind a MatMulIntegerToFloat: one percent of
the time, where the optimizers would take as much of the memory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.names import loop_name, loop_value_name
from loopedge.graph.editing import add_initializer, insert_before, make_node, replace_node
from loopedge.graph.metadata import read_metadata
from loopedge.graph.naming import take_name
from loopedge.graph.weights import RANGE_PREFIX, TABLE_PREFIX, Linear
from loopedge.quantizer.activations.rounding import RoundedActivation
from loopedge.quantizer.schemes.operators import integer_product

__all__ = ["fold_gates"]

Array = npt.NDArray[Any]
FUSED, WEIGHT_SCALE = "MatMulIntegerToFloat", 3


@dataclass(frozen=True, slots=True)
class _Gated:
    """An int8 product behind a gate: ``end`` gives what the gate multiplies, ``row`` gathers the gate's row."""

    end: ir.Node
    scale: ir.Value
    row: ir.Node
    table: Array
    """Gate times scale, float32 (rows, channels)."""


def fold_gates(model: ir.Model) -> dict[str, str]:
    """Fold the gates that follow int8 products, in place.

    A gate stays where something else reads the product, or where a row of it is zero throughout: that
    would hide what the product gives from every check. So it does as said above.

    Args:
        model: A graph of static int8, with operators of ONNX Runtime or of ONNX alone.

    Returns:
        The values that products gave and, by them, the gated ones that they give now, named as in the
        loop form.
    """
    moved: dict[str, str] = {}
    unfused = read_metadata(model.metadata_props).memory == "low"
    for node in list(model.graph.all_nodes()):
        found = _gated(node)
        if found is None or (
            unfused and found.end.op_type == FUSED and node.graph is not model.graph
        ):
            continue
        before, after = (
            loop_value_name(found.end, v.name or "")
            for v in (found.end.outputs[0], node.outputs[0])
        )
        _take_over(_scale_by(model.graph, found), node)
        moved[before] = after
        if not found.row.outputs[0].uses() and found.row.graph is not None:
            found.row.graph.remove(found.row, safe=True)
    _drop_unread(model.graph)
    return moved


def _gated(node: ir.Node) -> _Gated | None:
    """Return the int8 product that a node gates; None where it gates none."""
    if node.op_type != "Mul" or node.domain or len(node.inputs) != 2:
        return None
    for value, gate in (node.inputs, tuple(reversed(node.inputs))):
        end = None if value is None else value.producer()
        row = None if gate is None else gate.producer()
        scale = None if end is None else _weight_scale(end)
        if end is None or row is None or row.op_type != "Gather" or scale is None:
            continue
        table = row.inputs[0]
        if table is None or table.const_value is None or scale.const_value is None:
            continue
        given = end.outputs[0]
        if not (table.name or "").startswith(TABLE_PREFIX) or given.is_graph_output():
            continue
        if len(given.uses()) != 1:
            continue
        rows, scales = table.const_value.numpy(), scale.const_value.numpy()
        if rows.ndim == 2 and rows.shape[1:] == scales.shape and rows.any(axis=1).all():
            return _Gated(end, scale, row, np.ascontiguousarray(rows * scales, np.float32))
    return None


def _weight_scale(end: ir.Node) -> ir.Value | None:
    """Return the scales of the weight whose product a node gives: those of `integer_product`, or fused."""
    if end.op_type == FUSED:
        return end.inputs[WEIGHT_SCALE]
    if end.op_type != "Mul" or end.domain:
        return None
    floats, scales = (None if value is None else value.producer() for value in end.inputs)
    if floats is None or scales is None or (floats.op_type, scales.op_type) != ("Cast", "Mul"):
        return None
    product = None if floats.inputs[0] is None else floats.inputs[0].producer()
    return scales.inputs[1] if product is not None and product.op_type == "MatMulInteger" else None


def _scale_by(graph: ir.Graph, found: _Gated) -> ir.Node:
    """Let a product be scaled by the gated scales of its iteration; return the node that gives it."""
    end = found.end
    name = loop_name(end).removesuffix(".scaled")
    table = add_initializer(graph, f"{RANGE_PREFIX}{name}.gated_scale", found.table)
    pick = make_node("Gather", [table, found.row.inputs[1]], f"{end.name}.gated_scale", {"axis": 0})
    pick.outputs[0].type, pick.outputs[0].shape = table.type, ir.Shape(table.shape[1:])  # type: ignore[index]
    scales = None if end.inputs[1] is None else end.inputs[1].producer()
    if end.op_type == "Mul" and scales is not None:
        insert_before(scales, pick)
        scales.replace_input_with(1, pick.outputs[0])
        return end
    insert_before(end, pick)
    if end.graph is graph:  # unrolled: its row is a constant, for which ONNX Runtime would not fuse
        end.replace_input_with(WEIGHT_SCALE, pick.outputs[0])
        return end
    values, weight, scale, _, zero_point = end.inputs[:5]
    if values is None or weight is None or scale is None or zero_point is None:
        raise ValueError(f"{end.name} lacks an input")
    rounded = RoundedActivation(values, scale, zero_point, constant=False)
    nodes = integer_product(Linear(end, weight, 1), rounded, pick.outputs[0])
    replace_node(end, nodes)
    return nodes[-1]


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
