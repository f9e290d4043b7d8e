"""Static int8 from calibrated ranges: inside the loop, each iteration with a scale of its own.

What a linear reads is rounded to u8 with a scale and a zero point that are gathered by the iteration
number from tables of shape (loops,); the product with the s8 weight is one
``com.microsoft.MatMulIntegerToFloat``, or standard operators that ONNX Runtime fuses to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.metadata import read_metadata
from loopedge.graph.unrolling import CORE_NAME, find_core
from loopedge.graph.weights import RANGE_PREFIX, Linear, iteration_of, loop_name
from loopedge.quantizer.coverage import Coverage
from loopedge.quantizer.ranges import RangeTable
from loopedge.quantizer.rewriting import MICROSOFT, ChannelWeights, Scheme, rewrite_linears
from loopedge.quantizer.smoothing import apply_smoothing
from loopedge.quantizer.weights import INT8_LIMIT

__all__ = ["OPERATORS", "quantize_static"]

OPERATORS = ("microsoft", "standard")
"""``microsoft``: MatMulIntegerToFloat; ``standard``: operators of ONNX that are fused to it."""


def quantize_static(
    model: ir.Model,
    table: RangeTable,
    *,
    ops: str = "microsoft",
    keep: Mapping[str, str] | None = None,
    others: Mapping[str, Scheme] | None = None,
    limit: int = INT8_LIMIT,
) -> Coverage:
    """Replace the linears of a graph, in place; see `rewrite_linears`.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].
        table: Ranges by linear, named as in the loop form.
        ops: One of `OPERATORS`.
        keep: Linears to leave in float, by node name, with the reason.
        others: Linears that another scheme replaces, by node name.
        limit: Largest magnitude of a stored weight.

    Returns:
        What was replaced and what was not.

    Raises:
        InputError: The table lacks a linear or has too few rows.
    """
    factors = {
        name: np.array(found.smoothing, np.float32)
        for name, found in table.tensors.items()
        if found.smoothing is not None
    }
    apply_smoothing(model, factors)
    scheme = _Static(model, table, ops, limit)
    return rewrite_linears(model, scheme, keep=keep, others=others)


@dataclass(frozen=True, slots=True)
class _Rounded:
    """An activation as u8, with its scale and zero point; ``constant``: the same in every run."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    constant: bool


class _Static(ChannelWeights):
    """Rounds each activation once, however many linears read it."""

    def __init__(self, model: ir.Model, table: RangeTable, ops: str, limit: int) -> None:
        super().__init__(limit)
        self._graph, self._table, self._ops = model.graph, table, ops
        loop = find_core(model)
        self._body = None if loop is None else loop.attributes["body"].as_graph()
        metadata = read_metadata(model.metadata_props)
        self._unbounded = metadata is None or (
            metadata.dynamic_loops and metadata.max_loops is None
        )
        self._made: dict[ir.Value, _Rounded] = {}
        self._index: ir.Value | None = None

    def replace_linear(self, item: Linear) -> None:
        node, source = item.node, item.node.inputs[0]
        if source is None:
            raise InputError(f"linear {node.name} reads nothing")
        if source not in self._made:
            self._made[source] = self._round(node, source)
        _replace(item, self._made[source], self._ops)

    def _round(self, node: ir.Node, source: ir.Value) -> _Rounded:
        name = loop_name(node)
        if name not in self._table.tensors:
            raise InputError(f"the ranges lack linear {name}", hint="calibrate again with --data")
        scales, zero_points = self._table.tensors[name].quantization()
        rows = f"{RANGE_PREFIX}{name}"
        stored = [
            add_initializer(self._graph, f"{rows}.scale", scales),
            add_initializer(self._graph, f"{rows}.zero_point", zero_points),
        ]
        prefix = node.name or name
        picked = [self._pick(node, value, prefix) for value in stored]
        rounded = make_node("QuantizeLinear", [source, *picked], f"{prefix}.rounded")
        rounded.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        rounded.outputs[0].shape = source.shape
        self._insert(node, rounded)
        scale, zero_point = picked
        constant = node.graph is not self._body
        return _Rounded(rounded.outputs[0], scale, zero_point, constant)

    def _pick(self, node: ir.Node, stored: ir.Value, prefix: str) -> ir.Value:
        """Gather the row of the node's iteration; outside the core there is one row."""
        index = self._iteration(node)
        kind = (stored.name or "").rsplit(".", 1)[-1]
        gather = make_node("Gather", [stored, index], f"{prefix}.{kind}", {"axis": 0})
        gather.outputs[0].type, gather.outputs[0].shape = stored.type, ir.Shape([])
        self._insert(node, gather)
        return gather.outputs[0]

    def _iteration(self, node: ir.Node) -> ir.Value:
        if node.graph is not self._body or self._body is None:
            t = iteration_of(node) or 0
            return add_initializer(self._graph, f"loopedge.iteration.{t}", np.array(t, np.int64))
        if not self._unbounded:
            return self._body.inputs[0]
        if self._index is None:  # past the table, the last row holds
            last = add_initializer(
                self._graph, "loopedge.last_row", np.array(self._table.loops - 1, np.int64)
            )
            clamp = make_node("Min", [self._body.inputs[0], last], f"{CORE_NAME}/row")
            clamp.outputs[0].type = self._body.inputs[0].type
            clamp.outputs[0].shape = ir.Shape([])
            self._body.insert_before(self._body[0], clamp)
            self._index = clamp.outputs[0]
        return self._index

    def _insert(self, node: ir.Node, new: ir.Node) -> None:
        if node.graph is not None:
            node.graph.insert_before(node, new)


def _replace(item: Linear, rounded: _Rounded, ops: str) -> None:
    node, weight = item.node, item.weight
    if weight.graph is None:
        return
    weight_scale = weight.graph.initializers[f"{weight.name}.scale"]
    name = node.name or "MatMul"
    if ops == "microsoft":
        inputs = [rounded.values, weight, rounded.scale, weight_scale, rounded.zero_point]
        replace_node(node, [make_node("MatMulIntegerToFloat", inputs, name, domain=MICROSOFT)])
        return
    if not rounded.constant:
        replace_node(node, _integer_product(name, rounded, weight, weight_scale))
        return
    # With constant scales ONNX Runtime fuses this form, with gathered ones the other.
    values = make_node(
        "DequantizeLinear", [rounded.values, rounded.scale, rounded.zero_point], f"{name}.values"
    )
    floats = make_node("DequantizeLinear", [weight, weight_scale], f"{name}.weight", {"axis": 1})
    product = make_node("MatMul", [values.outputs[0], floats.outputs[0]], name)
    replace_node(node, [values, floats, product])


def _integer_product(
    name: str, rounded: _Rounded, weight: ir.Value, weight_scale: ir.Value
) -> list[ir.Node]:
    product = make_node("MatMulInteger", [rounded.values, weight, rounded.zero_point], name)
    product.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    floats = make_node("Cast", product.outputs, f"{name}.float", {"to": int(ir.DataType.FLOAT)})
    scale = make_node("Mul", [rounded.scale, weight_scale], f"{name}.scales")
    scaled = make_node("Mul", [floats.outputs[0], scale.outputs[0]], f"{name}.scaled")
    return [product, floats, scale, scaled]
