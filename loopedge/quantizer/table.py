"""A table that is both embedding and head, as int8: one copy, two readers.

The rows are stored as u8 around 128 with a scale per row, [vocabulary, d]. The embedding gathers rows
and scales them. The head multiplies the table from the left, W x^T: a constant left operand is
neither packed nor copied by ONNX Runtime. u8 on the left and s8 on the right is the fast pairing
(benchmarks/int8/head.py).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.weights import Linear
from loopedge.quantizer.weights import quantize_weight

__all__ = ["RoundedInput", "TiedTable", "find_tied_table"]

MIDDLE = 128
FLOAT = int(ir.DataType.FLOAT)


@dataclass(frozen=True, slots=True)
class RoundedInput:
    """What the head reads, in eight bits, with its scale and zero point."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value


@dataclass(frozen=True, slots=True)
class TiedTable:
    """A stored table [vocabulary, d], the nodes that gather its rows, and the head's product."""

    weight: ir.Value
    gathers: list[ir.Node]
    head: ir.Node

    @property
    def turn(self) -> ir.Node:
        """The Transpose of what the head reads."""
        turned = self.head.inputs[1]
        producer = None if turned is None else turned.producer()
        if producer is None:
            raise ValueError(f"{self.head.name} reads no Transpose")
        return producer

    def quantize(self, rounded: RoundedInput) -> None:
        """Replace table, embedding and head, in place."""
        graph, name = self.weight.graph, self.weight.name or ""
        if graph is None or self.weight.const_value is None:
            return
        values, scales = quantize_weight(self.weight.const_value.numpy(), axis=0)
        stored = (values.astype(np.int16) + MIDDLE).astype(np.uint8)
        self.weight.const_value = ir.tensor(stored, name=name)
        self.weight.type = ir.TensorType(ir.DataType.UINT8)
        scale = add_initializer(graph, f"{name}.scale", scales[:, None])
        middle = add_initializer(graph, f"{name}.zero_point", np.array(MIDDLE, np.uint8))
        shift = add_initializer(graph, f"{name}.shift", np.array(MIDDLE, np.float32))
        for gather in self.gathers:
            self._replace_gather(gather, scale, shift)
        self._replace_head(rounded, scale, middle)

    def _replace_gather(self, gather: ir.Node, scale: ir.Value, shift: ir.Value) -> None:
        name, ids = gather.name or "embedding", gather.inputs[1]
        rows = make_node("Gather", [self.weight, ids], f"{name}.rows", {"axis": 0})
        rows.outputs[0].type = self.weight.type
        scales = make_node("Gather", [scale, ids], f"{name}.scales", {"axis": 0})
        floats = make_node("Cast", rows.outputs, f"{name}.float", {"to": FLOAT})
        centred = make_node("Sub", [floats.outputs[0], shift], f"{name}.centred")
        scaled = make_node("Mul", [centred.outputs[0], scales.outputs[0]], name)
        replace_node(gather, [rows, scales, floats, centred, scaled])

    def _replace_head(self, rounded: RoundedInput, scale: ir.Value, middle: ir.Value) -> None:
        name, turn = self.head.name or "head", self.turn
        turned = make_node(
            "Transpose", [rounded.values], f"{name}.turned", {"perm": turn.attributes["perm"].value}
        )
        turned.outputs[0].type = rounded.values.type
        inputs = [self.weight, turned.outputs[0], middle, rounded.zero_point]
        product = make_node("MatMulInteger", inputs, name)
        product.outputs[0].type = ir.TensorType(ir.DataType.INT32)
        floats = make_node("Cast", product.outputs, f"{name}.float", {"to": FLOAT})
        both = make_node("Mul", [scale, rounded.scale], f"{name}.scales")
        scaled = make_node("Mul", [floats.outputs[0], both.outputs[0]], f"{name}.scaled")
        replace_node(self.head, [turned, product, floats, both, scaled])
        if turn.graph is not None and not turn.outputs[0].uses():
            turn.graph.remove(turn, safe=True)


def find_tied_table(item: Linear) -> TiedTable | None:
    """Return the table that a head shares with an embedding; None where something else reads it."""
    if item.index != 0 or item.node.op_type != "MatMul":
        return None
    turned = item.node.inputs[1]
    turn = None if turned is None else turned.producer()
    if turn is None or turn.op_type != "Transpose":
        return None
    gathers = [node for node in item.weight.consumers() if node is not item.node]
    plain = all(
        node.op_type == "Gather"
        and node.inputs[0] is item.weight
        and ("axis" not in node.attributes or node.attributes["axis"].as_int() == 0)
        for node in gathers
    )
    return TiedTable(item.weight, gathers, item.node) if plain else None
