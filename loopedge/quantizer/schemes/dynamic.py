"""Dynamic int8: activations are measured at run time, no data is needed.

Each linear becomes one ``com.microsoft.DynamicQuantizeMatMul``: it finds the range of its input,
rounds it to u8, multiplies with the s8 weight, and scales the result back to float. The range is that
of the whole tensor, so a result depends a little on what else is in the batch.
"""

from collections.abc import Mapping

import onnx_ir as ir

from loopedge.graph.editing import make_node, replace_node
from loopedge.graph.weights import Linear
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.schemes.rewriting import MICROSOFT, ChannelWeights, Scheme, rewrite_linears
from loopedge.quantizer.weights.channels import INT8_LIMIT

__all__ = ["dynamic_scheme", "quantize_dynamic", "replace_with_dynamic"]


def quantize_dynamic(
    model: ir.Model,
    *,
    keep: Mapping[str, str] | None = None,
    others: Mapping[str, Scheme] | None = None,
    limit: int = INT8_LIMIT,
) -> Coverage:
    """Replace the linears of a graph, in place; see `rewrite_linears`."""
    return rewrite_linears(model, dynamic_scheme(limit), keep=keep, others=others)


def replace_with_dynamic(node: ir.Node, weight: ir.Value, scale: ir.Value) -> None:
    """Put a product that measures its activation in the place of another.

    Args:
        node: A MatMul.
        weight: s8 [in, out].
        scale: Its scales (out,).
    """
    name = node.name or "DynamicQuantizeMatMul"
    inputs = [node.inputs[0], weight, scale]
    replace_node(node, [make_node("DynamicQuantizeMatMul", inputs, name, domain=MICROSOFT)])


def dynamic_scheme(limit: int = INT8_LIMIT) -> Scheme:
    """Return the scheme itself, for linears beside those of another one."""
    return _Dynamic(limit)


class _Dynamic(ChannelWeights):
    """Measures every activation where it is read."""

    def replace_linear(self, item: Linear) -> None:
        replace_with_dynamic(item.node, item.weight, self.scales[item.weight])

    def replace_row_linear(self, node: ir.Node, row: ir.Value, scale: ir.Value) -> None:
        """Multiply with the matrix of the iteration."""
        replace_with_dynamic(node, row, scale)
