"""A float graph that rounds as its int8 graph would, one linear and one iteration at a time.

Each linear x @ W becomes a product of two switches: where the input ``rounded`` says so for its row and
iteration, x passes through u8 and back and W is the rounded weight; else both are exact. So one session
shows what every rounding does to the outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.core.names import loop_name
from loopedge.graph.core.probe import activation_of
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.integer_weights.channels import quantize_weight
from loopedge.graph.integer_weights.embedding_rows import find_embeddings
from loopedge.graph.naming import mark_made_up
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.activations.ranges import RangeTable
from loopedge.quantizer.activations.rounding import IterationIndex, StaticRounding
from loopedge.quantizer.activations.smoothing import apply_smoothing

__all__ = ["ROUNDED_INPUT", "OtherRounding", "RoundWeight", "emulate"]

Array = npt.NDArray[Any]
RoundWeight = Callable[[str, Array, int], Array]
"""Takes a weight's name, its values, float32, and its axis of outputs; returns it rounded, float32 of the same shape."""

ROUNDED_INPUT = "loopedge.rounded"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRounding:
    """How one linear is rounded that stands otherwise than the scheme: its weight, and what it reads."""

    weight: RoundWeight
    activations: Literal["dynamic", "float"]


def emulate(
    model: ir.Model,
    *,
    loops: int,
    activations: RangeTable | Literal["dynamic", "float"],
    round_weight: RoundWeight,
    others: "Mapping[str, OtherRounding | None] | None" = None,
) -> tuple[ir.Model, list[str]]:
    """Return a copy of a float graph that rounds on demand.

    Args:
        model: The float graph. Not modified.
        loops: Iterations of the core, of several that of the longest.
        activations: Their ranges; ``dynamic``: found at run time; ``float``: never rounded.
        round_weight: How the scheme rounds weights.
        others: How single linears are rounded instead, by name; None: they stay float.

    Returns:
        The graph, whose further input `ROUNDED_INPUT` is bool (linears, loops), and the linears'
        names in the order of its rows; a table that is both embedding and head is in the head's row,
        one that is an embedding alone has a row under its own name. What stands outside the core obeys
        its first column. What reads no MatMul weight of float32, and what stays float, is not among them.
    """
    copy = model.clone()
    apart = {name: other for name, other in (others or {}).items() if other is not None}
    floats = set(others or {}) - set(apart)
    if isinstance(activations, RangeTable):
        apply_smoothing(copy, activations.factors())
    found = [
        item
        for item in linears(copy)
        if item.node.op_type == "MatMul" and item.weight.dtype == ir.DataType.FLOAT
        if loop_name(item.node) not in floats
    ]
    heads = {item.weight: loop_name(item.node) for item in found}
    read = {item.weight for item in linears(copy)}
    tables = [
        table
        for table in find_embeddings(copy)
        if table.weight in heads or table.weight not in read
    ]
    names = list(dict.fromkeys(loop_name(item.node) for item in found))
    names += [table.weight.name or "" for table in tables if table.weight not in heads]
    index = IterationIndex(copy)
    switches = _Switches(copy, names, index, loops)
    for table in tables:
        head = heads.get(table.weight)
        by = apart[head].weight if head in apart else round_weight
        rounded = _rounded(table.weight, 0, by if head else _round_rows)
        for gather in table.gathers:
            on = switches.of(head or table.weight.name or "", gather)
            _switch_gather(gather, on, rounded)
    passing, ranged = _passing(copy, activations, index), _Dynamic()
    for item in found:
        name, reader, other = item.node.name or "", _reader(item), apart.get(loop_name(item.node))
        on = switches.of(loop_name(item.node), reader)
        source, passes = activation_of(item.node), passing
        if other is not None:
            passes = ranged if other.activations == "dynamic" else None
        if passes is not None and source is not None:
            _switch(reader, 0, on, passes.passed(item.node, source, reader), f"{name}.activation")
        rounded = _rounded(item.weight, item.index, round_weight if other is None else other.weight)
        _switch(item.node, item.index, on, rounded, f"{name}.weight")
    return copy, names


class _Switches:
    """Adds the input of switches to a graph, and reads the one of a linear at a node's iteration."""

    def __init__(
        self, model: ir.Model, names: list[str], index: IterationIndex, loops: int
    ) -> None:
        self._graph, self._names, self._index = model.graph, names, index
        self._switch = ir.Value(
            name=ROUNDED_INPUT,
            type=ir.TensorType(ir.DataType.BOOL),
            shape=ir.Shape([len(names), loops]),
        )
        model.graph.inputs.append(self._switch)

    def of(self, name: str, before: ir.Node) -> ir.Value:
        place = self._names.index(name)
        row = add_initializer(self._graph, f"loopedge.switch.{place}", np.array(place, np.int64))
        own = make_node("Gather", [self._switch, row], f"{before.name}.switches", {"axis": 0})
        own.outputs[0].type = self._switch.type
        own.outputs[0].shape = (
            ir.Shape(self._switch.shape[1:]) if self._switch.shape is not None else None
        )
        insert_before(before, own)
        return self._index.pick(before, own.outputs[0], f"{before.name}.switch")


def _passing(
    model: ir.Model,
    activations: RangeTable | Literal["dynamic", "float"],
    index: IterationIndex,
) -> "_Passing | None":
    """Return what rounds the activations of a graph; None where they are never rounded."""
    if activations == "float":
        return None
    if activations == "dynamic":
        return _Dynamic()
    return _Static(StaticRounding(model, activations, index))


class _Passing(ABC):
    """Makes each rounded activation float again, once per graph that reads it."""

    def __init__(self) -> None:
        self._floats: dict[tuple[ir.Value, object], ir.Value] = {}

    def passed(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> ir.Value:
        """Return what a linear reads, rounded and made float again."""
        key = (source, before.graph)
        if key not in self._floats:
            back = make_node(
                "DequantizeLinear", self._rounded(linear, source, before), f"{linear.name}.passed"
            )
            back.outputs[0].type, back.outputs[0].shape = source.type, source.shape
            insert_before(before, back)
            self._floats[key] = back.outputs[0]
        return self._floats[key]

    @abstractmethod
    def _rounded(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> Sequence[ir.Value]:
        """Return values, scale and zero point."""


class _Static(_Passing):
    def __init__(self, rounding: StaticRounding) -> None:
        super().__init__()
        self._rounding = rounding

    def _rounded(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> Sequence[ir.Value]:
        rounded = self._rounding.round(linear, source, before)
        return [rounded.values, rounded.scale, rounded.zero_point]


class _Dynamic(_Passing):
    def _rounded(self, linear: ir.Node, source: ir.Value, before: ir.Node) -> Sequence[ir.Value]:
        name = f"{linear.name}.rounded"
        node = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=name)
        for output, kind in zip(node.outputs, ("values", "scale", "zero"), strict=True):
            output.name = f"{name}.{kind}"
            mark_made_up(output)
        insert_before(before, node)
        return node.outputs


def _reader(item: Linear) -> ir.Node:
    """Return the node that takes the activation: the linear, or the Transpose of a tied head."""
    turned = item.node.inputs[1]
    turn = None if item.index == 1 or turned is None else turned.producer()
    return turn if turn is not None and turn.op_type == "Transpose" else item.node


def _rounded(weight: ir.Value, axis: int, round_weight: RoundWeight) -> ir.Value:
    if weight.graph is None or weight.const_value is None:
        raise ValueError(f"{weight.name} is not a stored weight")
    rounded = round_weight(weight.name or "", weight.const_value.numpy(), axis)
    return add_initializer(weight.graph, f"{weight.name}.rounded", rounded)


def _round_rows(name: str, table: Array, axis: int) -> Array:
    """Round a table that only an embedding reads, as every scheme does."""
    values, scales = quantize_weight(table, axis=axis)
    rounded: Array = values * scales[:, None]
    return rounded


def _switch_gather(gather: ir.Node, on: ir.Value, rounded: ir.Value) -> None:
    exact, graph = gather.outputs[0], gather.graph
    if graph is None:
        return
    rows = make_node(
        "Gather", [rounded, gather.inputs[1]], f"{gather.name}.rounded", gather.attributes
    )
    choice = make_node("Where", [on, rows.outputs[0], exact], f"{gather.name}.rows")
    for made in (rows, choice):
        made.outputs[0].type, made.outputs[0].shape = exact.type, exact.shape
    users = [(use.node, use.idx) for use in exact.uses() if use.node is not choice]
    graph.insert_after(gather, [rows, choice])
    for node, place in users:
        node.replace_input_with(place, choice.outputs[0])


def _switch(node: ir.Node, place: int, on: ir.Value, rounded: ir.Value, name: str) -> None:
    exact = node.inputs[place]
    choice = make_node("Where", [on, rounded, exact], name)
    if exact is not None:
        choice.outputs[0].type, choice.outputs[0].shape = exact.type, exact.shape
    insert_before(node, choice)
    node.replace_input_with(place, choice.outputs[0])
