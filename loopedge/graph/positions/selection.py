"""Compute only some positions: which values need all positions, which only those that are read.

`demand_positions` walks from the readers up, `restrict_positions` puts the selection where it still changes nothing:
an operator that treats every position alone (`loopedge.graph.positions.position_inputs`) gets the positions that are read, one that mixes
positions gets all of them, and what it gives is selected.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.naming import take_name
from loopedge.graph.positions.position_inputs import PositionAxes, position_inputs
from loopedge.graph.shapes import constant_ints, known_shape

__all__ = [
    "Demand",
    "PositionSelection",
    "all_inputs",
    "demand_positions",
    "read_selection",
    "renumber_reader",
    "restrict_positions",
]

TO_THE_END = 2**31 - 1
"""An end of a Slice from which on it means all that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSelection:
    """Positions along an axis: single ones by their indices, or those from ``start`` to before ``end``.

    Indices below zero count from the end, as in ONNX.
    """

    indices: tuple[int, ...] | None = None
    start: int = 0
    end: int = TO_THE_END

    @property
    def most(self) -> int | None:
        """The most positions that it can be; None where that grows with the axis."""
        if self.indices is not None:
            return len(self.indices)
        if self.start < 0 <= self.end < TO_THE_END or (self.start >= 0 and self.end < 0):
            return None
        if self.end >= TO_THE_END:
            return -self.start if self.start < 0 else None
        return max(self.end - self.start, 0)

    @property
    def is_last(self) -> bool:
        """Whether it is the last position and no other."""
        if self.indices is not None:
            return self.indices == (-1,)
        return self.start == -1 and self.end >= TO_THE_END

    def __str__(self) -> str:
        if self.is_last:
            return "-1"
        if self.indices is not None:
            return ", ".join(map(str, self.indices))
        return f"{self.start}:{'' if self.end >= TO_THE_END else self.end}"

    def node(self, graph: ir.Graph, value: ir.Value, axis: int, name: str) -> ir.Node:
        """Return a node that takes these positions of a value, with the same axes; it is in no graph yet."""
        if self.indices is not None:
            positions = _constant(graph, self.indices)
            node = make_node("Gather", [value, positions], name, {"axis": axis})
        else:
            bounds = [_constant(graph, (bound,)) for bound in (self.start, self.end, axis)]
            node = make_node("Slice", [value, *bounds], name)
        node.outputs[0].type = value.type
        self.shrink(node.outputs[0], known_shape(value), axis)
        return node

    def shrink(self, value: ir.Value, shape: Sequence[int | str | None] | None, axis: int) -> None:
        """Note the shape that a value has with these positions alone."""
        if shape is not None and value.type is not None:
            positions = 1 if self.is_last else None if self.indices is None else len(self.indices)
            value.shape = ir.Shape([*shape[:axis], positions, *shape[axis + 1 :]])


def read_selection(node: ir.Node) -> tuple[int, PositionSelection] | None:
    """Return the axis and the positions of a Gather or Slice with constant bounds, behind the batch axis."""
    if node.domain or node.op_type not in {"Gather", "Slice"} or node.inputs[0] is None:
        return None
    shape = known_shape(node.inputs[0])
    if shape is None or node.inputs[0].const_value is not None:
        return None
    if node.op_type == "Gather":
        indices = constant_ints(node.inputs[1])
        axis = node.attributes.get_int("axis", 0) % len(shape)
        if indices is None or axis == 0:
            return None
        return axis, PositionSelection(indices=tuple(indices))
    start, end, axes = (constant_ints(value) for value in (*node.inputs[1:4], None, None)[:3])
    steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if not start or not end or not axes or len(axes) != 1 or steps != [1]:
        return None
    axis = axes[0] % len(shape)
    if axis == 0:
        return None
    return axis, PositionSelection(start=start[0], end=min(end[0], TO_THE_END))


@dataclass(slots=True)
class Demand:
    """What is needed of values: of those in ``positions`` the positions along an axis, of ``whole`` everything.

    A value may be in both. ``plans`` hold, for nodes of which only positions are needed, the axis of their
    outputs and what `position_inputs` says; ``mixing`` are the nodes that ended the way of the positions.
    """

    positions: dict[ir.Value, int] = field(default_factory=dict)
    whole: set[ir.Value] = field(default_factory=set)
    plans: dict[ir.Node, tuple[int, PositionAxes]] = field(default_factory=dict)
    mixing: list[ir.Node] = field(default_factory=list)

    def need(self, value: ir.Value | None, axis: int | None) -> None:
        """Note that positions along an axis are needed of a value, or all of it."""
        if value is None:
            return
        if axis is None or self.positions.setdefault(value, axis) != axis:
            self.whole.add(value)


def demand_positions(
    nodes: Sequence[ir.Node], positions: Mapping[ir.Value, int], whole: Iterable[ir.Value] = ()
) -> Demand:
    """Find what is needed of every value, from the readers up.

    Args:
        nodes: In the order of the graph.
        positions: Values of which some positions are read, the same ones of all, each with their axis.
        whole: Values that are read whole.
    """
    demand = Demand(positions=dict(positions), whole=set(whole))
    for node in reversed(nodes):
        wanted = [output for output in node.outputs if output in demand.positions]
        if any(output in demand.whole for output in node.outputs):
            demand.whole.update(wanted)  # a node computes all its outputs alike
            _need_all(node, demand)
        elif wanted:
            axes = {demand.positions[output] for output in wanted}
            places = position_inputs(node, min(axes)) if len(axes) == 1 else None
            if places is None:
                demand.mixing.append(node)
                demand.whole.update(wanted)
                _need_all(node, demand)
                continue
            demand.plans[node] = min(axes), places
            for value, place in zip(node.inputs, places, strict=True):
                demand.need(value, place)
    return demand


def _need_all(node: ir.Node, demand: Demand) -> None:
    for value in all_inputs(node):
        demand.need(value, None)


def all_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the graphs that it holds read, of whatever graph."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from all_inputs(inner)


def restrict_positions(
    graph: ir.Graph,
    nodes: Sequence[ir.Node],
    demand: Demand,
    selection: PositionSelection,
    *,
    before: ir.Node,
    prefix: str,
) -> dict[ir.Value, ir.Value]:
    """Let nodes compute the positions that are needed, in place.

    Requires: ``demand`` is of these nodes, and nothing changed since.

    Ensures: a value that was needed by its positions alone holds these alone; one that was needed whole is as it was.

    Args:
        graph: Where the nodes stand.
        nodes: Those of `demand_positions`.
        demand: What it found.
        selection: The positions.
        before: Where inputs and initializers are selected: a node at or before the first of ``nodes``.
        prefix: Of the names of new nodes.

    Returns:
        The values that had to stay whole and are needed by positions too, each with its positions.
    """
    inside, selected = set(nodes), dict[ir.Value, ir.Value]()
    for value, axis in demand.positions.items():
        maker = value.producer()
        if value not in demand.whole and maker in inside:
            continue
        name = (value.name or "").removeprefix(prefix)
        taken = selection.node(graph, value, axis, f"{prefix}rows.{name}")
        if maker is not None and maker.graph is graph:
            graph.insert_after(maker, taken)
        else:
            insert_before(before, taken)
        selected[value] = taken.outputs[0]
    for node, (axis, _) in demand.plans.items():
        if node.op_type == "Attention":
            _write_causal_mask(graph, node, selection)
        if node.op_type == "Reshape":
            _copy_positions(graph, node, axis)
    for node, (axis, places) in demand.plans.items():
        for index, place in enumerate(places):
            source = node.inputs[index]
            if place is not None and source is not None and source in selected:
                node.replace_input_with(index, selected[source])
        for output in node.outputs:
            selection.shrink(output, known_shape(output), axis)
    return selected


def renumber_reader(graph: ir.Graph, node: ir.Node, selection: PositionSelection) -> None:
    """Let a Gather or Slice of `read_selection` read what holds the selected positions alone, in place.

    Requires: its first input holds the positions of ``selection``, in their order.

    Ensures: it gives what it gave; one that would read all positions in their order is gone.
    """
    source, output = node.inputs[0], node.outputs[0]
    indices = constant_ints(node.inputs[1]) if node.op_type == "Gather" else None
    if source is None:
        return
    if indices is not None and selection.indices is not None:
        places = tuple(selection.indices.index(index) for index in indices)
        scalar = node.inputs[1] is not None and len(node.inputs[1].shape or ()) == 0
        if scalar or places != tuple(range(len(selection.indices))):
            name = (
                f"loopedge.{places[0]}" if scalar else f"loopedge.rows.{'.'.join(map(str, places))}"
            )
            value = np.array(places[0] if scalar else places, np.int64)
            node.replace_input_with(1, add_initializer(graph, name, value))
            return
    if not output.is_graph_output():
        ir.convenience.replace_all_uses_with(output, source)
    else:
        _give_out(node, source, output)
    graph.remove(node, safe=True)


def _give_out(node: ir.Node, source: ir.Value, output: ir.Value) -> None:
    """Let a value take the place of a graph output, which keeps its name."""
    name, maker = output.name, source.producer()
    made = source
    if len(source.uses()) > 1 or maker is None or maker.op_type in {"Loop", "Gather", "Slice"}:
        copy = make_node("Identity", [source], node.name or "rows")
        insert_before(node, copy)
        made = copy.outputs[0]
    made.type, made.shape = output.type, output.shape
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    take_name(made, name)


def _copy_positions(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    """Let a Reshape take the number of positions from its input."""
    sizes = constant_ints(node.inputs[1])
    if sizes is not None and sizes[axis] > 0:
        sizes[axis] = 0
        node.replace_input_with(1, _constant(graph, tuple(sizes)))


def _write_causal_mask(graph: ir.Graph, node: ir.Node, selection: PositionSelection) -> None:
    """Say which keys the remaining queries may read: the operator would count them from the first.

    The last query may read all keys.
    """
    if not node.attributes.get_int("is_causal", 0):
        return
    node.attributes["is_causal"] = ir.AttrInt64("is_causal", 0)
    if selection.is_last:
        return
    key = node.inputs[1]
    shape = known_shape(key)
    if key is None or shape is None:
        raise ValueError(f"{node.name} has keys of unknown rank")
    name, place = f"{node.name}.causal", len(shape) - 2
    zero, one = (add_initializer(graph, f"loopedge.{n}", np.array(n, np.int64)) for n in (0, 1))
    length = make_node("Shape", [key], f"{name}.length", {"start": place, "end": place + 1})
    count = make_node("Squeeze", [length.outputs[0]], f"{name}.count")
    keys = make_node("Range", [zero, count.outputs[0], one], f"{name}.keys")
    keys.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    keys.outputs[0].shape = ir.Shape([shape[place]])
    queries = selection.node(graph, keys.outputs[0], 0, f"{name}.queries")
    behind = _constant(graph, (1,))
    column = make_node("Unsqueeze", [queries.outputs[0], behind], f"{name}.column")
    mask = make_node("GreaterOrEqual", [column.outputs[0], keys.outputs[0]], name)
    mask.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
    for new in (length, count, keys, queries, column, mask):
        insert_before(node, new)
    node.resize_inputs(4)
    node.replace_input_with(3, mask.outputs[0])


def _constant(graph: ir.Graph, values: tuple[int, ...]) -> ir.Value:
    name = f"loopedge.rows.{'.'.join(map(str, values))}"
    return add_initializer(graph, name, np.array(values, np.int64))
