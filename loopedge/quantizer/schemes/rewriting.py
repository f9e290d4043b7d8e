"""What all int8 schemes share: which linears become int8, their weights stored once, coverage."""

from collections.abc import Collection, Mapping
from typing import Protocol

import onnx_ir as ir

from loopedge.graph.integer_weights.channels import INT8_LIMIT, store_int8
from loopedge.graph.integer_weights.rounded_weights import RoundedWeights
from loopedge.graph.integer_weights.tied_table import TiedTable, find_tied_table
from loopedge.graph.operators import LINEARS
from loopedge.graph.weight_reads import WeightRead, integer_bytes, weight_reads
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.coverage import Coverage, Skipped
from loopedge.quantizer.schemes.operators import MICROSOFT
from loopedge.quantizer.weights.matrix_rows import find_matrix_rows, reasons_for_rows

__all__ = ["ChannelWeights", "Scheme", "rewrite_linears"]


class Scheme(Protocol):
    """How a scheme stores weights, rounds activations and multiplies."""

    def reason_for_float(self, weight: ir.Value, inputs_axis: int) -> str | None:
        """Say why a float weight, whose inputs lie along an axis, cannot be stored; None if it can."""
        ...

    def store_weight(self, weight: ir.Value) -> None:
        """Replace a float weight [in, out] by integers under its name."""
        ...

    def store_table(self, table: TiedTable) -> Linear:
        """Do the same with a table that is both embedding and head; return the head."""
        ...

    def replace_linear(self, item: Linear) -> None:
        """Replace a linear whose weight is stored."""
        ...

    @property
    def reason_for_float_rows(self) -> str | None:
        """Say why rows that are matrices stay in float; None if they need not."""
        ...

    @property
    def limit(self) -> int:
        """Largest magnitude of a stored weight."""
        ...

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Replace a product with a matrix that is picked by the iteration: s8 [in, out], scales (out,)."""
        ...


class ChannelWeights:
    """Stores weights as s8 with one scale per output channel: what static and dynamic share.

    Args:
        limit: Largest magnitude of a stored weight.
        rounded: Weights whose values were chosen already; the others are rounded to nearest.

    Attributes:
        scales: Of the stored weights.
    """

    def __init__(self, limit: int = INT8_LIMIT, rounded: RoundedWeights | None = None) -> None:
        self._limit, self._rounded = limit, rounded
        self.scales: dict[ir.Value, ir.Value] = {}

    @property
    def limit(self) -> int:
        """Largest magnitude of a stored weight."""
        return self._limit

    @property
    def reason_for_float_rows(self) -> str | None:
        """Take every table."""
        return None

    def reason_for_float(self, weight: ir.Value, inputs_axis: int) -> str | None:
        """Take every weight."""
        return None

    def store_weight(self, weight: ir.Value) -> None:
        """Store s8 [in, out]."""
        self.scales[weight] = store_int8(weight, self.limit, self._rounded)

    def store_table(self, table: TiedTable) -> Linear:
        """Store s8 [d, vocabulary]."""
        head, self.scales[table.weight] = table.store_turned(self.limit, self._rounded)
        return head


def rewrite_linears(
    model: ir.Model,
    scheme: Scheme,
    *,
    keep: Mapping[str, str] | None = None,
    others: Mapping[str, Scheme] | None = None,
) -> Coverage:
    """Replace the linears of a graph, in place.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].
        scheme: Makes the replacements.
        keep: Linears to leave in float, by node name, with the reason.
        others: Linears that another scheme replaces, by node name. Linears that share a weight go
            together, and ``keep`` goes before.

    Returns:
        What was replaced and what was not; convolutions and recurrent cells are among the latter.

    Ensures: a replaced weight has one copy in integers under its name and its scales under
    ``<name>.scale``, numbered where the graph has that name; its float values are gone.
    """
    found, kept = linears(model), dict(keep or {})
    readers: dict[ir.Value, list[Linear]] = {}
    for item in found:
        readers.setdefault(item.weight, []).append(item)
    schemes: dict[ir.Value, Scheme] = {}
    reasons: dict[ir.Value, str | None] = {}
    for weight, items in readers.items():
        names = [item.node.name or "" for item in items]
        reason = next((kept[name] for name in names if name in kept), None)
        chosen = next((other for name, other in (others or {}).items() if name in names), scheme)
        reasons[weight] = (
            reason
            or _reason_for_float(weight, items)
            or chosen.reason_for_float(weight, 1 - items[0].index)
        )
        schemes[weight] = chosen
    for weight, reason in reasons.items():
        if reason is None and find_tied_table(readers[weight][0]) is None:
            schemes[weight].store_weight(weight)
    for item in found:
        if reasons[item.weight] is None:
            chosen, table = schemes[item.weight], find_tied_table(item)
            chosen.replace_linear(item if table is None else chosen.store_table(table))
    node_reasons = {item.node: reasons[item.weight] for item in found}
    small = _rewrite_rows(model, scheme, kept)
    if any(node.domain == MICROSOFT for node in model.graph.all_nodes()):
        model.graph.opset_imports[MICROSOFT] = 1
    return _coverage(model, {**node_reasons, **small}, kept, not_worth=small)


def _rewrite_rows(model: ir.Model, scheme: Scheme, kept: Mapping[str, str]) -> dict[ir.Node, str]:
    """Replace the products with rows that are matrices; return those that stay in float, with the reason."""
    tables = find_matrix_rows(model)
    reasons = reasons_for_rows(tables, kept, scheme.reason_for_float_rows)
    for rows in tables:
        if rows.table not in reasons:
            for node, (row, scale) in rows.store(scheme.limit).items():
                scheme.replace_row_linear(node, row, scale)
    if len(tables) > len(reasons):
        model.graph.sort()  # what a row's product reads may be rounded further down
    return {
        item.node: reasons[rows.table]
        for rows in tables
        if rows.table in reasons
        for item in rows.linears
    }


def _coverage(
    model: ir.Model,
    reasons: Mapping[ir.Node, str | None],
    kept: Mapping[str, str],
    not_worth: Collection[ir.Node],
) -> Coverage:
    """Count what a graph reads after it was rewritten.

    Args:
        model: The graph.
        reasons: Why linears stayed as they are.
        kept: As in `rewrite_linears`.
        not_worth: What stays in float by choice.
    """
    reads = weight_reads(model)
    integers, total = integer_bytes(reads)
    coverage = Coverage(bytes=integers, total_bytes=total)
    for read in reads:
        name = read.node.name or read.node.op_type
        if read.in_integers:
            coverage.quantized.append(name)
        else:
            reason = reasons.get(read.node) or kept.get(name) or _no_form(read)
            coverage.skipped.append(Skipped(name=name, reason=reason))
            if read.node in not_worth:
                coverage.not_worth.append(name)
    return coverage


def _no_form(read: WeightRead) -> str:
    """Say why a product that is no linear stays in float."""
    if read.node.op_type not in LINEARS:
        return f"{read.node.op_type} has no int8 form"
    names = [value.name or "a constant" for value in read.weights]
    if len(names) == 1:
        return f"{names[0]} has more than two dimensions, or is read in another form too"
    return f"its weight is computed from {', '.join(names)}"


def _reason_for_float(weight: ir.Value, items: list[Linear]) -> str | None:
    """Say why the linears that read a weight must stay in float; None when they need not."""
    if weight.dtype != ir.DataType.FLOAT:
        return f"{weight.name} is {weight.dtype}, not float32"
    if weight.is_graph_output():
        return f"{weight.name} is an output of the graph"
    if any(item.node.op_type != "MatMul" for item in items):
        return f"{items[0].node.op_type} has no int8 form"
    if any(item.index != 1 for item in items):
        if len(items) == 1 and find_tied_table(items[0]) is not None:
            return None
        return f"{weight.name} is read in two layouts"
    nodes = {item.node for item in items}
    others = [user.op_type for user in weight.consumers() if user not in nodes]
    return f"{weight.name} is also read by {others[0]}" if others else None
