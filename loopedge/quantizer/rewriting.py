"""What all int8 schemes share: which linears become int8, their weights stored once, coverage."""

from collections.abc import Mapping
from typing import Protocol

import onnx_ir as ir

from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.coverage import Coverage, Skipped
from loopedge.quantizer.table import find_tied_table
from loopedge.quantizer.weights import INT8_LIMIT, store_int8

__all__ = ["MICROSOFT", "Scheme", "rewrite_linears"]

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's integer products."""


class Scheme(Protocol):
    """How a scheme rounds activations and multiplies."""

    def replace_linear(self, item: Linear) -> None:
        """Replace a linear whose weight is stored as s8 with scales ``<name>.scale``."""
        ...


def rewrite_linears(
    model: ir.Model,
    scheme: Scheme,
    *,
    keep: Mapping[str, str] | None = None,
    limit: int = INT8_LIMIT,
) -> Coverage:
    """Replace the linears of a graph, in place.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].
        scheme: Makes the replacements.
        keep: Linears to leave in float, by node name, with the reason.
        limit: Largest magnitude of a stored weight.

    Returns:
        What was replaced and what was not.

    Ensures: a replaced weight has one eight-bit copy under its name and one scale per output
    channel under ``<name>.scale``; its float values are gone.
    """
    coverage, found, kept = Coverage(), linears(model), dict(keep or {})
    readers: dict[ir.Value, list[Linear]] = {}
    for item in found:
        readers.setdefault(item.weight, []).append(item)
    reasons: dict[ir.Value, str | None] = {}
    for weight, items in readers.items():
        named = [kept[name] for item in items if (name := item.node.name or "") in kept]
        reasons[weight] = named[0] if named else _reason_for_float(weight, items)
    for weight, reason in reasons.items():
        if reason is None and find_tied_table(readers[weight][0]) is None:
            store_int8(weight, limit)
    for item in found:
        reason, name = reasons[item.weight], item.node.name or item.weight.name or ""
        if reason is not None:
            coverage.skipped.append(Skipped(name=name, reason=reason))
            continue
        table = find_tied_table(item)
        scheme.replace_linear(item if table is None else table.store_turned(limit))
        coverage.quantized.append(name)
    return coverage


def _reason_for_float(weight: ir.Value, items: list[Linear]) -> str | None:
    """Say why the linears that read a weight must stay in float; None when they need not."""
    if weight.dtype != ir.DataType.FLOAT:
        return f"{weight.name} is {weight.dtype}, not float32"
    if any(item.node.op_type != "MatMul" for item in items):
        return f"{items[0].node.op_type} has no int8 form"
    if any(item.index != 1 for item in items):
        if len(items) == 1 and find_tied_table(items[0]) is not None:
            return None
        return f"{weight.name} is read in two layouts"
    nodes = {item.node for item in items}
    others = [user.op_type for user in weight.consumers() if user not in nodes]
    return f"{weight.name} is also read by {others[0]}" if others else None
