"""Static int8 from calibrated ranges: inside the loop, each iteration with a scale of its own.

What a linear reads is rounded to u8 with a scale and a zero point that are gathered by the iteration
number from tables of shape (loops,); the product with the s8 weight is one
``com.microsoft.MatMulIntegerToFloat``, or standard operators that ONNX Runtime fuses to it.
"""

from collections.abc import Mapping

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.core.probe import can_probe
from loopedge.graph.editing import make_node, replace_node
from loopedge.graph.integer_weights.channels import INT8_LIMIT
from loopedge.graph.integer_weights.rounded_weights import RoundedWeights
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.rounding import RoundedActivation, StaticRounding
from loopedge.quantizer.activations.smoothing import apply_smoothing
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.schemes.dynamic import DynamicWeights
from loopedge.quantizer.schemes.operators import MICROSOFT, integer_product
from loopedge.quantizer.schemes.rewriting import ChannelWeights, Scheme, rewrite_linears

__all__ = ["quantize_static"]


def quantize_static(
    model: ir.Model,
    table: RangeTable,
    *,
    ops: str = "microsoft",
    keep: Mapping[str, str] | None = None,
    others: Mapping[str, Scheme] | None = None,
    limit: int = INT8_LIMIT,
    rounded: RoundedWeights | None = None,
) -> Coverage:
    """Replace the linears of a graph, in place; see `rewrite_linears`.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].
        table: Ranges by linear, named as in the loop form.
        ops: ``microsoft`` or ``standard``.
        keep: Linears to leave in float, by node name, with the reason.
        others: Linears that another scheme replaces, by node name. Those of branches and of a Scan, which have no
            ranges, become dynamic.
        limit: Largest magnitude of a stored weight.
        rounded: Weights whose values were chosen already; those of smoothed linears are the smoothed weights.

    Returns:
        What was replaced and what was not.

    Raises:
        InputError: The table lacks a linear or has too few rows.
    """
    apply_smoothing(model, table.factors())
    scheme = _Static(model, table, ops, limit, rounded)
    later = DynamicWeights(limit, ops=ops, rounded=rounded)
    found_later = dict.fromkeys(_without_ranges(model, table), later)
    return rewrite_linears(model, scheme, keep=keep, others={**(others or {}), **found_later})


def _without_ranges(model: ir.Model, table: RangeTable) -> list[str]:
    """Name the linears that calibration does not see: of branches and of a Scan."""
    cores = Cores(model)
    return [
        item.node.name or ""
        for item in linears(model)
        if loop_name(item.node) not in table.tensors and not can_probe(cores, item.node)
    ]


class _Static(ChannelWeights):
    """Multiplies what `StaticRounding` gives."""

    def __init__(
        self,
        model: ir.Model,
        table: RangeTable,
        ops: str,
        limit: int,
        rounded: RoundedWeights | None,
    ) -> None:
        super().__init__(limit, rounded)
        self._rounding, self._ops = StaticRounding(model, table), ops
        self._later = DynamicWeights(limit, ops=ops)

    def replace_linear(self, item: Linear) -> None:
        node, source = item.node, item.node.inputs[0]
        if source is None:
            raise InputError(f"linear {node.name} reads nothing")
        rounded = self._rounding.round(node, source, node)
        _replace(item, rounded, self.scales[item.weight], self._ops)

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Multiply what a linear beside it has rounded already, else what is rounded as it comes."""
        rounded = self._rounding.rounded_for(node)
        if rounded is None:
            self._later.replace_row_linear(node, row, scale)
        elif self._ops == "standard":
            replace_node(node, integer_product(Linear(node, row, 1), rounded, scale))
        else:
            _replace(Linear(node, row, 1), rounded, scale, self._ops)


def _replace(item: Linear, rounded: RoundedActivation, weight_scale: ir.Value, ops: str) -> None:
    node, weight = item.node, item.weight
    name = node.name or "MatMul"
    if ops == "microsoft":
        inputs = [rounded.values, weight, rounded.scale, weight_scale, rounded.zero_point]
        replace_node(node, [make_node("MatMulIntegerToFloat", inputs, name, domain=MICROSOFT)])
        return
    if not rounded.constant:
        replace_node(node, integer_product(item, rounded, weight_scale))
        return
    # With constant scales ONNX Runtime fuses this form, with gathered ones the other.
    values = make_node(
        "DequantizeLinear", [rounded.values, rounded.scale, rounded.zero_point], f"{name}.values"
    )
    floats = make_node("DequantizeLinear", [weight, weight_scale], f"{name}.weight", {"axis": 1})
    product = make_node("MatMul", [values.outputs[0], floats.outputs[0]], name)
    replace_node(node, [values, floats, product])
