"""Embedding tables as int8 rows: what is gathered by ids is stored in eight bits, whatever the scheme.

A row is one word's and has one scale: Gather of the row, Cast, Mul with the gathered scale. A table that
is also the head is not stored by this module: the head's scheme stores it (`loopedge.quantizer.weights.tied_table`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.operators import Fact, having
from loopedge.graph.weights import is_weight, stored_bytes
from loopedge.quantizer.coverage import Coverage, Skipped
from loopedge.quantizer.weights.channels import quantize_weight

__all__ = ["EmbeddingTable", "find_embeddings", "quantize_embeddings"]

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


def quantize_embeddings(
    tables: list[EmbeddingTable], *, keep: Mapping[str, str] | None = None
) -> Coverage:
    """Store tables as s8 rows, in place.

    Args:
        tables: Of `find_embeddings`, found before the linears were replaced.
        keep: Tables to leave in float, by name, with the reason.

    Returns:
        The tables by their names; one that its head's scheme has stored counts as quantized.
    """
    coverage = Coverage()
    for table in tables:
        name = table.weight.name or ""
        reason = None if _is_stored(table.weight) else (keep or {}).get(name) or _reason(table)
        if reason is not None:
            coverage.skipped.append(Skipped(name=name, reason=reason))
            continue
        if not _is_stored(table.weight):
            _store_rows(table)
        coverage.quantized.append(name)
        coverage.bytes += stored_bytes(table.weight)
    coverage.total_bytes = sum(stored_bytes(table.weight) for table in tables)
    return coverage


def _store_rows(table: EmbeddingTable) -> None:
    weight, graph = table.weight, table.weight.graph
    if graph is None or weight.const_value is None:
        raise ValueError(f"{weight.name} is not a stored table")
    values, scales = quantize_weight(weight.const_value.numpy(), axis=0)
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


def _is_table(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not is_weight(value):
        return False
    return len(tensor.shape) == 2 and not value.is_graph_output()


def _is_stored(weight: ir.Value) -> bool:
    return weight.const_value is not None and weight.const_value.dtype != ir.DataType.FLOAT


def _reason(table: EmbeddingTable) -> str | None:
    """Say why a table must or should stay in float; None where it need not."""
    others = [user.op_type for user in table.weight.consumers() if user not in table.gathers]
    if others:
        return f"{table.weight.name} is also read by {others[0]}"
    tensor = table.weight.const_value
    if tensor is None:
        return f"{table.weight.name} holds no values"
    width = int(tensor.shape.numpy()[1])
    if tensor.nbytes < SMALLEST_BYTES:
        return f"{table.weight.name} takes {tensor.nbytes} bytes, below {SMALLEST_BYTES}"
    return f"its rows have {width} values, below {NARROWEST}" if width < NARROWEST else None


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
