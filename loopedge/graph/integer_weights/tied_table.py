"""A table that is both embedding and head, as int8: one copy, two readers.

In float the table stands as rows, [vocabulary, d], and the head multiplies it from the left. In eight
bits it is turned: [d, vocabulary], one scale per word, so that the head is a linear like any other, and
the embedding gathers columns, which are small. Multiplying the rows from the left in integers would need
no turning, but ONNX Runtime's kernels for a constant left operand are slower (benchmarks/int8/head.py).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.graph.integer_weights.rounded_weights import Channels, RoundedWeights
from loopedge.graph.weights import Linear

__all__ = ["TiedTable", "find_tied_table"]


@dataclass(frozen=True, slots=True)
class TiedTable:
    """A stored table [vocabulary, d], the nodes that gather its rows, and the head's product.

    The head is Transpose, MatMul, Transpose: ``turn`` makes x^T, ``back`` turns W x^T into x W^T.
    """

    weight: ir.Value
    gathers: list[ir.Node]
    turn: ir.Node
    head: ir.Node
    back: ir.Node

    def store_turned(
        self, limit: int, rounded: RoundedWeights | None = None
    ) -> tuple[Linear, ir.Value]:
        """Store the table as s8 [d, vocabulary] with scales, in place.

        Args:
            limit: Largest magnitude of a stored value.
            rounded: Weights whose values were chosen already; the others are rounded to nearest.

        Returns:
            The head as a linear that reads it, and the scales.
        """
        graph, name = self.weight.graph, self.weight.name or ""
        if graph is None or self.weight.const_value is None:
            raise ValueError(f"{name} is not a stored table")
        rows, chosen = self.weight.const_value.numpy(), (rounded or {}).get(name)
        if isinstance(chosen, Channels):
            values, scales = chosen.of_shape(rows.shape).values, chosen.scales
        else:
            values, scales = quantize_weight(rows, axis=0, limit=limit)
        turned = np.ascontiguousarray(values.T)
        self.weight.const_value = ir.tensor(turned, name=name)
        self.weight.type, self.weight.shape = (
            ir.TensorType(ir.DataType.INT8),
            ir.Shape(turned.shape),
        )
        scale = add_initializer(graph, f"{name}.scale", scales)
        for gather in self.gathers:
            self._replace_gather(gather, graph, scale)
        return self.untransposed(), scale

    def untransposed(self) -> Linear:
        """Put one product in the place of Transpose, MatMul, Transpose; return it as a linear."""
        product = make_node("MatMul", [self.turn.inputs[0], self.weight], self.head.name or "head")
        replace_node(self.back, [product])
        for node in (self.head, self.turn):
            if node.graph is not None and not node.outputs[0].uses():
                node.graph.remove(node, safe=True)
        return Linear(product, self.weight, 1)

    def _replace_gather(self, gather: ir.Node, graph: ir.Graph, scale: ir.Value) -> None:
        name, ids = gather.name or "embedding", gather.inputs[1]
        if ids is None or ids.shape is None:
            raise ValueError(f"{name} gathers by ids of unknown rank")
        rank = len(ids.shape)
        last = add_initializer(graph, "loopedge.last_axis", np.array([-1], np.int64))
        columns = make_node("Gather", [self.weight, ids], f"{name}.columns", {"axis": 1})
        columns.outputs[0].type = self.weight.type
        order = [*range(1, rank + 1), 0]
        rows = make_node("Transpose", columns.outputs, f"{name}.rows", {"perm": order})
        rows.outputs[0].type = self.weight.type
        floats = make_node("Cast", rows.outputs, f"{name}.float", {"to": int(ir.DataType.FLOAT)})
        scales = make_node("Gather", [scale, ids], f"{name}.scales", {"axis": 0})
        lifted = make_node("Unsqueeze", [scales.outputs[0], last], f"{name}.lifted")
        scaled = make_node("Mul", [floats.outputs[0], lifted.outputs[0]], name)
        replace_node(gather, [columns, rows, floats, scales, lifted, scaled])


def find_tied_table(item: Linear) -> TiedTable | None:
    """Return the table that a head shares with an embedding; None where something else reads it."""
    if item.index != 0 or item.node.op_type != "MatMul":
        return None
    turned = item.node.inputs[1]
    turn = None if turned is None else turned.producer()
    after = list(item.node.outputs[0].consumers())
    if turn is None or turn.op_type != "Transpose" or len(after) != 1:
        return None
    if after[0].op_type != "Transpose":
        return None
    gathers = [node for node in item.weight.consumers() if node is not item.node]
    plain = all(
        node.op_type == "Gather"
        and node.inputs[0] is item.weight
        and node.inputs[1] is not None
        and node.inputs[1].shape is not None
        and ("axis" not in node.attributes or node.attributes["axis"].as_int() == 0)
        for node in gathers
    )
    return TiedTable(item.weight, gathers, turn, item.node, after[0]) if plain else None
