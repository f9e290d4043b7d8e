"""Assemble captured parts and timestep tables into one graph with a Loop node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.exporter.axes import Axes, AxisNames
from loopedge.exporter.capture import Parts
from loopedge.graph.editing import initializer
from loopedge.graph.opsets import IR_VERSIONS
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["Plan", "assemble_loop"]

WRAPPER_PREFIX = "model."  # the attribute that holds the user's module in the captured wrappers


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the assembled graph shall look like from outside.

    ``tables`` map a row name to float values of shape (max_loops, ...).
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    tables: Mapping[str, npt.NDArray[np.generic]]
    loops: int
    dynamic_loops: bool
    opset: int


def assemble_loop(parts: Parts, axes: Axes, plan: Plan) -> ir.Model:
    """Build the loop form.

    Args:
        parts: Captured graphs; their nodes are moved, so they cannot be used again.
        axes: Dynamic axes of inputs, state and context.
        plan: Names, tables, loop count and opset.

    Returns:
        A model whose weights are initializers of the main graph and whose body has none.

    Raises:
        InputError: Two parts hold different values under one name.
    """
    for part, names in (
        (parts.prelude, axes.inputs),
        (parts.core, axes.state + axes.context),
        (parts.coda, axes.state + axes.context),
    ):
        _name_dims(part.graph, names)
    weights = _Weights()
    prelude = _take_apart(parts.prelude, "prelude", weights)
    core = _take_apart(parts.core, "core", weights)
    coda = _take_apart(parts.coda, "coda", weights)

    for value, name in zip(prelude.inputs, plan.input_names, strict=True):
        value.name = name
    state, context = prelude.outputs[: parts.states], prelude.outputs[parts.states :]
    trip_count, graph_inputs, count_nodes = _trip_count(plan, weights, prelude.inputs)
    loop = _loop_node(core, state, context, parts.row_names, trip_count, plan, weights)
    _connect(coda.inputs, [*loop.outputs, *context], coda)

    outputs = _named_outputs(coda, plan.output_names)
    graph = ir.Graph(
        graph_inputs,
        outputs,
        nodes=[*prelude.nodes, *count_nodes, loop, *coda.nodes],
        initializers=list(weights.values.values()),
        opset_imports={"": plan.opset},
        name="loopedge",
    )
    return ir.Model(graph, ir_version=IR_VERSIONS[plan.opset], producer_name="loopedge")


class _Weights:
    """Initializers of the main graph, each distinct torch tensor once."""

    def __init__(self) -> None:
        self.values: dict[str, ir.Value] = {}
        self._by_storage: dict[tuple[object, ...], ir.Value] = {}

    def add(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return the initializer for ``tensor``, shared when its storage was seen before."""
        key = _storage_key(tensor)
        if key in self._by_storage:
            return self._by_storage[key]
        known = self.values.get(name)
        if known is not None and known.const_value is not None:
            if not np.array_equal(known.const_value.numpy(), tensor.numpy()):
                raise InputError(f"two parts of the model hold different values for {name}")
            return known
        value = initializer(name, tensor)
        self.values[name] = value
        self._by_storage[key] = value
        return value

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """Return an initializer with the values of ``array``."""
        return self.add(name, ir.tensor(array, name=name))


def _storage_key(tensor: ir.TensorProtocol) -> tuple[object, ...]:
    raw = getattr(tensor, "raw", None)
    pointer = getattr(raw, "data_ptr", None)
    if pointer is None or raw is None:
        return (id(tensor),)
    return (pointer(), tuple(raw.shape), tuple(raw.stride()), str(raw.dtype))


@dataclass(slots=True)
class _Piece:
    """Nodes of a captured graph, freed from it."""

    inputs: list[ir.Value]
    outputs: list[ir.Value]
    nodes: list[ir.Node]


def _take_apart(model: ir.Model, prefix: str, weights: _Weights) -> _Piece:
    graph = model.graph
    for value in list(graph.initializers.values()):
        name = (value.name or "").removeprefix(WRAPPER_PREFIX)
        if value.const_value is None:
            raise InputError(f"{name} has no value in the captured {prefix}")
        shared = weights.add(name, value.const_value)
        ir.convenience.replace_all_uses_with(value, shared, replace_graph_outputs=True)
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    graph.initializers.clear()
    graph.inputs.clear()
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for node in nodes:
        node.name = f"{prefix}/{(node.name or node.op_type).removeprefix('node_')}"
        for output in node.outputs:
            output.name = f"{prefix}/{output.name}"
    return _Piece(inputs, outputs, nodes)


def _connect(inputs: Sequence[ir.Value], sources: Sequence[ir.Value], piece: _Piece) -> None:
    """Let ``sources`` feed what ``inputs`` fed, also where a piece passes an input through."""
    for value, source in zip(inputs, sources, strict=True):
        ir.convenience.replace_all_uses_with(value, source)
        piece.outputs = [source if output is value else output for output in piece.outputs]


def _trip_count(
    plan: Plan, weights: _Weights, inputs: list[ir.Value]
) -> tuple[ir.Value, list[ir.Value], list[ir.Node]]:
    if not plan.dynamic_loops:
        count = weights.constant("loopedge.loops", np.array(plan.loops, np.int64))
        return count, inputs, []
    loops = ir.Value(name="loops", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    one = weights.constant("loopedge.min_loops", np.array(1, np.int64))
    nodes = [ir.node("Max", [loops, one], name="loops/at_least_one")]
    nodes[0].outputs[0].name = "loops/positive"
    if plan.tables:
        rows = len(next(iter(plan.tables.values())))
        limit = weights.constant("loopedge.max_loops", np.array(rows, np.int64))
        nodes.append(ir.node("Min", [nodes[0].outputs[0], limit], name="loops/at_most_table"))
        nodes[1].outputs[0].name = "loops/clamped"
    return nodes[-1].outputs[0], [*inputs, loops], nodes


def _loop_node(
    core: _Piece,
    state: Sequence[ir.Value],
    context: Sequence[ir.Value],
    row_names: Sequence[str],
    trip_count: ir.Value,
    plan: Plan,
    weights: _Weights,
) -> ir.Node:
    iteration = ir.Value(
        name="iteration", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])
    )
    condition = ir.Value(name="condition", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    carried = [
        ir.Value(name=f"state.{i}", type=value.type, shape=_copy(core.inputs[i].shape))
        for i, value in enumerate(state)
    ]
    gathers = []
    rows = []
    for name in row_names:
        table = weights.constant(TABLE_PREFIX + name, np.ascontiguousarray(plan.tables[name]))
        gather = ir.node(
            "Gather", [table, iteration], attributes={"axis": 0}, name=f"core/row.{name}"
        )
        gather.outputs[0].name = f"core/row.{name}"
        gather.outputs[0].type = table.type
        gather.outputs[0].shape = ir.Shape(plan.tables[name].shape[1:])
        gathers.append(gather)
        rows.append(gather.outputs[0])
    _connect(core.inputs, [*carried, *context, *rows], core)
    keep_going = ir.node("Identity", [condition], name="core/condition")
    keep_going.outputs[0].name = "condition.next"
    keep_going.outputs[0].type = condition.type
    keep_going.outputs[0].shape = condition.shape
    # A body output must be made in the body: a state that passes through gets an Identity.
    made = {output for node in core.nodes for output in node.outputs}
    passed: list[ir.Node] = []
    next_states = []
    for i, output in enumerate(core.outputs):
        if output not in made or output in next_states:
            node = ir.node("Identity", [output], name=f"core/pass.{i}")
            node.outputs[0].name = f"core/state.{i}.next"
            node.outputs[0].type, node.outputs[0].shape = output.type, _copy(output.shape)
            passed.append(node)
            next_states.append(node.outputs[0])
        else:
            next_states.append(output)
    body = ir.Graph(
        [iteration, condition, *carried],
        [keep_going.outputs[0], *next_states],
        nodes=[keep_going, *gathers, *core.nodes, *passed],
        name="core",
    )
    always = weights.constant("loopedge.true", np.array(True))
    loop = ir.Node(
        "",
        "Loop",
        [trip_count, always, *state],
        [ir.AttrGraph("body", body)],
        num_outputs=len(carried),
        name="core",
    )
    for i, (output, value) in enumerate(zip(loop.outputs, carried, strict=True)):
        output.name = f"core/state.{i}"
        output.type, output.shape = value.type, _copy(value.shape)
    return loop


def _named_outputs(coda: _Piece, names: Sequence[str]) -> list[ir.Value]:
    if len(names) != len(coda.outputs):
        raise InputError(
            f"the coda gives {len(coda.outputs)} outputs, {len(names)} names are known"
        )
    made = {output for node in coda.nodes for output in node.outputs}
    outputs: list[ir.Value] = []
    for output, name in zip(coda.outputs, names, strict=True):
        value = output
        if output not in made or output in outputs:
            node = ir.node("Identity", [output], name=f"coda/{name}")
            node.outputs[0].type, node.outputs[0].shape = output.type, _copy(output.shape)
            coda.nodes.append(node)
            value = node.outputs[0]
        value.name = name
        outputs.append(value)
    return outputs


def _copy(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape(list(shape))


def _name_dims(graph: ir.Graph, axes: tuple[AxisNames, ...]) -> None:
    """Give torch's symbols (s41, ...) the names of the axes they stand for, in a whole part."""
    names: dict[str, str] = {}
    for value, axis_names in zip(graph.inputs, axes, strict=False):
        for axis, name in axis_names.items():
            if value.shape is not None:
                names[str(value.shape[axis])] = name
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.shape is not None:
            value.shape = ir.Shape(
                [dim if isinstance(dim, int) else names.get(str(dim)) for dim in value.shape]
            )
