"""Dynamic int8: activations are measured at run time, no data is needed.

The range of what a linear reads is found, it is rounded to u8, multiplied with the s8 weight, and the product is
scaled back to float: one ``com.microsoft.DynamicQuantizeMatMul``, or operators of ONNX alone. The range is that
of the whole tensor, so a result depends a little on what else is in the batch.
"""

from collections.abc import Mapping

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import make_node, replace_node
from loopedge.graph.integer_weights.channels import INT8_LIMIT
from loopedge.graph.integer_weights.rounded_weights import RoundedWeights
from loopedge.graph.weights import Linear
from loopedge.quantizer.activations.rounding import DynamicRounding
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.schemes.operators import MICROSOFT, integer_product
from loopedge.quantizer.schemes.rewriting import ChannelWeights, Scheme, rewrite_linears

__all__ = ["DynamicWeights", "quantize_dynamic"]


def quantize_dynamic(
    model: ir.Model,
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
        ops: ``microsoft`` or ``standard``.
        keep: Linears to leave in float, by node name, with the reason.
        others: Linears that another scheme replaces, by node name.
        limit: Largest magnitude of a stored weight.
        rounded: Weights whose values were chosen already.

    Returns:
        What was replaced and what was not.
    """
    scheme = DynamicWeights(limit, ops=ops, rounded=rounded)
    return rewrite_linears(model, scheme, keep=keep, others=others)


class DynamicWeights(ChannelWeights):
    """Measures every activation where it is read; other schemes may leave single linears to it.

    Args:
        limit: Largest magnitude of a stored weight.
        ops: ``microsoft``: one DynamicQuantizeMatMul. ``standard``: DynamicQuantizeLinear, one for all linears that
            read an activation, and MatMulInteger. Both give the same numbers; ONNX Runtime fuses the second.
        rounded: Weights whose values were chosen already.
    """

    def __init__(
        self,
        limit: int = INT8_LIMIT,
        *,
        ops: str = "microsoft",
        rounded: RoundedWeights | None = None,
    ) -> None:
        super().__init__(limit, rounded)
        self._rounding = DynamicRounding() if ops == "standard" else None

    def replace_linear(self, item: Linear) -> None:
        """Put the product of integers in the place of a linear whose weight is stored."""
        self._multiply(item, self.scales[item.weight])

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Put it in the place of a product with a matrix that is picked by the iteration."""
        self._multiply(Linear(node, row, 1), scale)

    def _multiply(self, item: Linear, scale: ir.Value) -> None:
        node, source = item.node, item.node.inputs[0]
        if self._rounding is None:
            name = node.name or "DynamicQuantizeMatMul"
            inputs = [source, item.weight, scale]
            replace_node(node, [make_node("DynamicQuantizeMatMul", inputs, name, domain=MICROSOFT)])
            return
        if source is None:
            raise InputError(f"linear {node.name} reads nothing")
        rounded = self._rounding.round(source, before=node)
        replace_node(node, integer_product(item, rounded, scale))
