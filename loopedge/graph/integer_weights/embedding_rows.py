"""Tables that are gathered by ids, and their rows as int8 with one scale each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.graph.lazy_weights import LazyWeight
from loopedge.graph.operators import Fact, having
from loopedge.graph.weights import is_weight

__all__ = ["NARROWEST", "SMALLEST_BYTES", "EmbeddingTable", "find_embeddings", "store_rows"]

SMALLEST_BYTES = 4096
"""A smaller float table is left: three nodes more would save less than three KiB."""

NARROWEST = 16
"""Values in a row below which its scale takes a large part of what eight bits save."""


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """A float table [vocabulary, d], and the nodes that gather its rows by ids."""

    weight: ir.Value
    gathers: list[ir.Node]


def find_embeddings(model: ir.Model) -> list[EmbeddingTable]:
    """List the float32 tables that are gathered by ids: by what an integer input of the graph holds.

    Position tables that are sliced or gathered by a running number, and timestep tables, which are
    gathered by the iteration, are none.
    """
    gathers: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        table, ids = (*node.inputs, None, None)[:2]
        if node.op_type != "Gather" or node.domain or table is None or ids is None:
            continue
        if _axis(node) == 0 and _is_table(table) and _holds_ids(ids, model.graph):
            gathers.setdefault(table, []).append(node)
    return [EmbeddingTable(weight, nodes) for weight, nodes in gathers.items()]


def store_rows(table: EmbeddingTable) -> None:
    """Store the rows of a table as int8, in place: Gather of the row, Cast, Mul with the gathered scale."""
    weight, graph = table.weight, table.weight.graph
    if graph is None or weight.const_value is None:
        raise ValueError(f"{weight.name} is not a stored table")
    values, scales = _rounded_rows(weight.const_value)
    weight.const_value = ir.tensor(values, name=weight.name)
    weight.type = ir.TensorType(ir.DataType.INT8)
    scale = add_initializer(graph, f"{weight.name}.scale", scales[:, None])
    for gather in table.gathers:
        name, ids = gather.name or "embedding", gather.inputs[1]
        rows = make_node("Gather", [weight, ids], f"{name}.rows", {"axis": 0})
        rows.outputs[0].type = weight.type
        floats = make_node("Cast", rows.outputs, f"{name}.float", {"to": int(ir.DataType.FLOAT)})
        steps = make_node("Gather", [scale, ids], f"{name}.scales", {"axis": 0})
        scaled = make_node("Mul", [floats.outputs[0], steps.outputs[0]], name)
        replace_node(gather, [rows, floats, steps, scaled])


def _rounded_rows(
    tensor: ir.TensorProtocol,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    if not isinstance(tensor, LazyWeight) or tensor.is_turned:
        return quantize_weight(tensor.numpy(), axis=0)
    values = np.empty(tensor.source.shape, np.int8)
    scales = np.empty(len(values), np.float32)
    for start, rows in tensor.source.chunks():
        some = slice(start, start + len(rows))
        values[some], scales[some] = quantize_weight(rows, axis=0)
    return values, scales


def _is_table(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not is_weight(value):
        return False
    return len(tensor.shape) == 2 and not value.is_graph_output()


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _holds_ids(value: ir.Value, graph: ir.Graph) -> bool:
    """Tell whether a value is computed from the values of an integer input of the main graph."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        producer = found.producer()
        if producer is None:
            if found in graph.inputs and found.dtype in {ir.DataType.INT64, ir.DataType.INT32}:
                return True
        elif producer.op_type not in having(Fact.SIZE):
            waiting += [source for source in producer.inputs if source is not None]
    return False
