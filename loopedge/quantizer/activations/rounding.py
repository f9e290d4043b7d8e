"""Round what linears read to u8: each activation once, in each iteration by its own scale.

The scale is calibrated (`StaticRounding`) or found when the model runs (`DynamicRounding`).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import loop_name
from loopedge.graph.core.view import LoopCore
from loopedge.graph.editing import INTEGERS_SINCE, add_initializer, insert_before, make_node
from loopedge.graph.naming import mark_made_up
from loopedge.graph.weights import OWN_PREFIX, RANGE_PREFIX
from loopedge.options import option_name
from loopedge.quantizer.activations.ranges import RangeTable

__all__ = ["DynamicRounding", "IterationIndex", "RoundedActivation", "StaticRounding"]

BOOL = ir.DataType.BOOL


@dataclass(frozen=True, slots=True)
class RoundedActivation:
    """An activation as u8, with its scale and zero point; ``constant``: the same in every run."""

    values: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    constant: bool


class IterationIndex:
    """Picks a node's row from tables of shape (rows, ...), whatever the form of the graph.

    Args:
        model: The graph; loops may run past the tables, whose last row then holds.
    """

    def __init__(self, model: ir.Model) -> None:
        self._graph, self._cores = model.graph, Cores(model)
        self._opset = model.opset_imports.get("", INTEGERS_SINCE)
        metadata = self._cores.metadata
        self._unbounded = metadata.foreign or (
            metadata.dynamic_loops and metadata.max_loops is None
        )
        self._clamped: dict[tuple[ir.Graph, int], ir.Value] = {}

    def in_body(self, node: ir.Node) -> bool:
        """Tell whether a node stands in the body of a core's Loop."""
        return isinstance(self._cores.of(node), LoopCore)

    def pick(self, node: ir.Node, table: ir.Value, name: str) -> ir.Value:
        """Gather, before a node, the table's row of its iteration; outside the cores the first."""
        gather = make_node("Gather", [table, self._of(node, table)], name, {"axis": 0})
        gather.outputs[0].type = table.type
        gather.outputs[0].shape = None if table.shape is None else ir.Shape(table.shape[1:])
        insert_before(node, gather)
        return gather.outputs[0]

    def _of(self, node: ir.Node, table: ir.Value) -> ir.Value:
        core, number = self._cores.of(node), self._cores.number_at(node)
        rows = None if table.shape is None else table.shape[0]
        if not isinstance(core, LoopCore) or not self._unbounded or not isinstance(rows, int):
            return number
        body, most = core.loop.body, core.loop.most_iterations
        if most is not None and most <= rows:
            return number
        if (body, rows) not in self._clamped:
            self._clamped[body, rows] = self._clamp(number, rows - 1, body, f"{core.name}/row")
        return self._clamped[body, rows]

    def _clamp(self, number: ir.Value, last: int, body: ir.Graph, name: str) -> ir.Value:
        """Return the smaller of an iteration's number and the last, at the start of its body."""
        limit = add_initializer(self._graph, f"{OWN_PREFIX}row.{last}", np.array(last, np.int64))
        smaller = make_node("Min", [number, limit], name)
        nodes = [smaller]
        if self._opset < INTEGERS_SINCE:
            less = make_node("Less", [number, limit], f"{name}.before_last")
            less.outputs[0].type, less.outputs[0].shape = ir.TensorType(BOOL), ir.Shape([])
            smaller = make_node("Where", [less.outputs[0], number, limit], name)
            nodes = [less, smaller]
        smaller.outputs[0].type, smaller.outputs[0].shape = number.type, ir.Shape([])
        body.insert_before(body[0], nodes)
        return smaller.outputs[0]


class StaticRounding:
    """Rounds with calibrated ranges.

    Args:
        model: The graph, changed in place.
        table: Ranges by linear, named as in the loop form.
        index: Of the graph, where something else picks rows too.
    """

    def __init__(
        self, model: ir.Model, table: RangeTable, index: IterationIndex | None = None
    ) -> None:
        self._graph, self._table = model.graph, table
        self._index = index or IterationIndex(model)
        self._made: dict[tuple[ir.Value, object], RoundedActivation] = {}

    def round(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> RoundedActivation:
        """Return ``source`` as u8, by the range of the first linear of a graph that asks for it.

        Args:
            linear: The linear that reads it.
            source: The activation.
            before: Where the rounding stands, if it is new.

        Raises:
            InputError: The table lacks the linear.
        """
        key = (source, before.graph)
        if key not in self._made:
            self._made[key] = self._round(linear, source, before)
        return self._made[key]

    def rounded_for(self, reader: ir.Node) -> RoundedActivation | None:
        """Return what a node reads first as u8 where a linear of its graph reads the same; None elsewhere."""
        source = reader.inputs[0]
        return None if source is None else self._made.get((source, reader.graph))

    def _round(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> RoundedActivation:
        name = loop_name(linear)
        if name not in self._table.tensors:
            raise InputError(
                f"the ranges lack linear {name}", hint=f"calibrate again with {option_name('data')}"
            )
        scales, zero_points = self._table.tensors[name].quantization()
        rows, prefix = f"{RANGE_PREFIX}{name}", linear.name or name
        scale, zero_point = (
            self._index.pick(
                before, add_initializer(self._graph, f"{rows}.{kind}", values), f"{prefix}.{kind}"
            )
            for kind, values in (("scale", scales), ("zero_point", zero_points))
        )
        rounded = make_node("QuantizeLinear", [source, scale, zero_point], f"{prefix}.rounded")
        rounded.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
        rounded.outputs[0].shape = source.shape
        insert_before(before, rounded)
        constant = not self._index.in_body(before)
        return RoundedActivation(rounded.outputs[0], scale, zero_point, constant)


class DynamicRounding:
    """Rounds by the range that an activation has when the model runs: operators of ONNX alone."""

    def __init__(self) -> None:
        self._made: dict[tuple[ir.Value, object], RoundedActivation] = {}

    def round(self, source: ir.Value, *, before: ir.Node) -> RoundedActivation:
        """Return ``source`` as u8; linears of one graph share one DynamicQuantizeLinear.

        Args:
            source: The activation.
            before: The linear that reads it: where the rounding stands, if it is new.
        """
        key = (source, before.graph)
        if key not in self._made:
            name = f"{before.name or source.name}.rounded"
            made = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=name)
            types = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            shapes = (source.shape, ir.Shape([]), ir.Shape([]))
            kinds = ("output", "scale", "zero_point")
            for value, kind, dtype, shape in zip(made.outputs, kinds, types, shapes, strict=True):
                value.name, value.type, value.shape = f"{name}.{kind}", ir.TensorType(dtype), shape
                mark_made_up(value)
            mark_made_up(made)
            insert_before(before, made)
            values, scale, zero_point = made.outputs
            self._made[key] = RoundedActivation(values, scale, zero_point, constant=False)
        return self._made[key]
