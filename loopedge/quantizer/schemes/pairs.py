"""Static int8 as QuantizeLinear and DequantizeLinear pairs around MatMul, what accelerators take.

Each linear reads what it read through a pair of its own, whose scale and zero point are constants, and its weight through
a DequantizeLinear of its own. All iterations read the same stored weight and the same scales of it: engines take a product
with the nodes that belong to it alone, and fold what they read twice. So the file holds each weight once.

The graph has no Loop: in its body scales would be gathered, and no engine takes pairs whose scales are not constants.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import iteration_of, loop_name
from loopedge.graph.core.probe import can_probe
from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.integer_weights.channels import INT8_LIMIT, as_unsigned, store_int8
from loopedge.graph.integer_weights.rounded_weights import RoundedWeights
from loopedge.graph.integer_weights.tied_table import TiedTable
from loopedge.graph.weights import RANGE_PREFIX, Linear, linears
from loopedge.options import option, option_name
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.smoothing import apply_smoothing
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.schemes.rewriting import ChannelWeights, Scheme, rewrite_linears
from loopedge.quantizer.schemes.targets import Target

__all__ = ["WeightPairs", "check_pairs", "quantize_pairs"]

NO_RANGE = "it has no range, and pairs take no other"
ROWS = "its matrix is picked by the iteration, which has no pair"


def quantize_pairs(
    model: ir.Model,
    table: RangeTable,
    *,
    target: Target,
    keep: Mapping[str, str],
    weight_only: Mapping[str, str],
    limit: int = INT8_LIMIT,
    rounded: RoundedWeights | None = None,
) -> Coverage:
    """Put linears between pairs, in place; see `rewrite_linears`.

    Requires: no core is a Loop.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].
        table: Ranges by linear, named as in the loop form.
        target: Says which integers.
        keep: Linears to leave in float, by node name, with the reason.
        weight_only: Linears whose weights alone are stored in integers, by node name.
        limit: Largest magnitude of a stored weight.
        rounded: Weights whose values were chosen already; those of smoothed linears are the smoothed weights.

    Returns:
        What was replaced and what was not.

    Raises:
        InputError: The table lacks a linear or has too few rows.
    """
    cores = Cores(model)
    apply_smoothing(model, table.factors())
    without = {
        item.node.name or "": NO_RANGE
        for item in linears(model)
        if loop_name(item.node) not in table.tensors and not can_probe(cores, item.node)
    }
    alone = WeightPairs(target, limit, rounded)
    others: dict[str, Scheme] = dict.fromkeys(weight_only, alone)
    scheme = ActivationPairs(target, table, limit, rounded)
    return rewrite_linears(model, scheme, keep={**without, **keep}, others=others)


class WeightPairs(ChannelWeights):
    """Stores weights alone: what a linear reads stays float.

    Args:
        target: Says which integers.
        limit: Largest magnitude of a stored weight.
        rounded: Weights whose values were chosen already.
    """

    def __init__(
        self, target: Target, limit: int = INT8_LIMIT, rounded: RoundedWeights | None = None
    ) -> None:
        super().__init__(limit, rounded)
        self._target = target
        self._zero_points: dict[ir.Value, ir.Value] = {}

    @property
    def reason_for_float_rows(self) -> str | None:
        """Leave every table of matrices."""
        return ROWS

    def store_weight(self, weight: ir.Value) -> None:
        """Store s8 or u8 [in, out], with a scale per channel or one for all."""
        self.scales[weight] = store_int8(
            weight, self._limit, self._rounded, per_channel=self._target.per_channel
        )
        self._shift(weight)

    def store_table(self, table: TiedTable) -> Linear:
        """Do so with a table that is embedding and head; its rows are read too, by channel, in s8."""
        return super().store_table(table)

    def replace_linear(self, item: Linear) -> None:
        """Read the weight through a DequantizeLinear."""
        self._multiply(item, item.node.inputs[0], [])

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Do nothing: `reason_for_float_rows` leaves such products."""

    def _multiply(self, item: Linear, source: ir.Value | None, before: list[ir.Node]) -> None:
        if source is None:
            raise InputError(f"linear {item.node.name} reads nothing")
        name, scale = item.node.name or "MatMul", self.scales[item.weight]
        zero_point = self._zero_points.get(item.weight)
        stored = [item.weight, scale, *([] if zero_point is None else [zero_point])]
        axis = {"axis": 1} if scale.shape is not None and len(scale.shape) else {}
        floats = make_node("DequantizeLinear", stored, f"{name}.weight", axis)
        product = make_node("MatMul", [source, floats.outputs[0]], name)
        replace_node(item.node, [*before, floats, product])

    def _shift(self, weight: ir.Value) -> None:
        """Store a weight as u8 where the target asks for that."""
        graph = weight.graph
        if self._target.unsigned_weights and graph is not None:
            self._zero_points[weight] = as_unsigned(weight, graph)


class ActivationPairs(WeightPairs):
    """Rounds what linears read, too, each by the range of its iteration."""

    def __init__(
        self, target: Target, table: RangeTable, limit: int, rounded: RoundedWeights | None
    ) -> None:
        super().__init__(target, limit, rounded)
        self._table = table

    def replace_linear(self, item: Linear) -> None:
        """Read the activation and the weight through pairs."""
        node, source, graph = item.node, item.node.inputs[0], item.weight.graph
        if source is None or graph is None:
            raise InputError(f"linear {node.name} reads nothing")
        scale, zero_point = self._constants(node, graph)
        name = node.name or "MatMul"
        rounded = make_node("QuantizeLinear", [source, scale, zero_point], f"{name}.rounded")
        rounded.outputs[0].type, rounded.outputs[0].shape = zero_point.type, source.shape
        floats = make_node(
            "DequantizeLinear", [rounded.outputs[0], scale, zero_point], f"{name}.values"
        )
        floats.outputs[0].shape = source.shape
        self._multiply(item, floats.outputs[0], [rounded, floats])

    def _constants(self, node: ir.Node, graph: ir.Graph) -> tuple[ir.Value, ir.Value]:
        """Store scale and zero point of a linear's iteration; return them."""
        known = self._table.tensors.get(loop_name(node))
        if known is None:
            raise InputError(
                f"the ranges lack linear {loop_name(node)}",
                hint=f"calibrate again with {option_name('data')}",
            )
        row = 0 if len(known.low) == 1 else iteration_of(node) or 0
        if row >= len(known.low):
            raise InputError(
                f"the ranges of {loop_name(node)} are for {len(known.low)} iterations, {node.name} is one more",
                hint=f"calibrate again with {option_name('data')}",
            )
        scale, zero = self._target.activations.rounding(known.low[row], known.high[row])
        prefix = f"{RANGE_PREFIX}{node.name}"
        return (
            add_initializer(graph, f"{prefix}.scale", np.array(scale)),
            add_initializer(graph, f"{prefix}.zero_point", np.array(zero)),
        )


def check_pairs(scheme: str) -> None:
    """Refuse a scheme that has no pairs.

    Raises:
        InputError: Only static has.
    """
    if scheme != "static":
        other = {"dynamic": "finds its ranges while it runs", "auto": "chooses among other files"}
        what = other.get(scheme, "rounds no activations")
        raise InputError(
            f"{option('ops', 'qdq')} writes calibrated ranges as constants; {scheme} {what}",
            hint=f"{option('scheme', 'static')}, or leave out {option_name('ops')}",
        )
