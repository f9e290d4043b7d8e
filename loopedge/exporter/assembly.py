"""Assemble captured parts and timestep tables into one graph with a Loop node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.opsets import IR_VERSIONS
from loopedge.errors import InputError
from loopedge.exporter.capture.axes import Axes, InnerAxes
from loopedge.exporter.capture.capture import InnerPart, Parts
from loopedge.exporter.capture.captured_pieces import Weights, name_dims, take_apart
from loopedge.exporter.capture.nested import CALL, MARKER, MARKER_DOMAIN, STATES
from loopedge.graph.core.loop_node import EarlyExit, loop_node
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.core.pieces import Piece, connect, copy_shape
from loopedge.graph.core.selectable_count import selected_count
from loopedge.graph.metadata import ITERATIONS_OUTPUT, TOLERANCE_INPUT
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["AssemblyPlan", "HaltPart", "assemble_loop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltPart:
    """The captured halt; after the states it reads the graph inputs ``others``, by name."""

    graph: ir.Model
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyPlan:
    """What the assembled graph shall look like from outside.

    ``tables`` map a row name to values of shape (max_loops, ...).
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    tables: Mapping[str, npt.NDArray[np.generic]]
    loops: int
    dynamic_loops: bool
    opset: int
    halt: HaltPart | None = None


def assemble_loop(parts: Parts, axes: Axes, plan: AssemblyPlan) -> ir.Model:
    """Build the loop form.

    Args:
        parts: Captured graphs; their nodes are moved, so they cannot be used again.
        axes: Dynamic axes of inputs, state and context.
        plan: Names, tables, loop count, opset and early exit.

    Returns:
        A model whose weights are initializers of the main graph and whose bodies have none.

    Raises:
        InputError: Two parts hold different values under one name.
    """
    _name_all_dims(parts, axes)
    weights = Weights()
    prelude = take_apart(parts.prelude, "prelude", weights)
    core = take_apart(parts.core, CORE_NAME, weights)
    coda = take_apart(parts.coda, "coda", weights)
    inner = {
        key: (part, take_apart(part.graph, f"{CORE_NAME}/inner.{key}", weights))
        for key, part in parts.inner.items()
    }
    _replace_markers(core, inner, weights)

    for value, name in zip(prelude.inputs, plan.input_names, strict=True):
        value.name = name
    state, context = prelude.outputs[: parts.states], prelude.outputs[parts.states :]
    trip_count, graph_inputs, count_nodes = _trip_count(plan, weights, prelude.inputs)
    early, tolerance = _early_exit(plan, axes, graph_inputs, weights)
    tables = {
        name: weights.constant(TABLE_PREFIX + name, np.ascontiguousarray(plan.tables[name]))
        for name in parts.row_names
    }
    looped = loop_node(
        CORE_NAME,
        core,
        state=state,
        context=context,
        tables=tables,
        trip_count=trip_count,
        constant=weights.constant,
        early=early,
    )
    ran = list(looped[-1].outputs)
    connect(coda.inputs, [*ran[: parts.states], *context], coda)

    outputs = _named_outputs(coda, plan.output_names)
    if early is not None:
        ran[-1].name = ITERATIONS_OUTPUT
        outputs.append(ran[-1])
    graph = ir.Graph(
        [*graph_inputs, *tolerance],
        outputs,
        nodes=[*prelude.nodes, *count_nodes, *looped, *coda.nodes],
        initializers=list(weights.values.values()),
        opset_imports={"": plan.opset},
        name="loopedge",
    )
    return ir.Model(graph, ir_version=IR_VERSIONS[plan.opset], producer_name="loopedge")


def _replace_markers(
    piece: Piece, parts: Mapping[str, tuple[InnerPart, Piece]], weights: Weights
) -> None:
    """Put a Loop in the place of each marker of an inner loop, also inside the bodies, in place.

    Args:
        piece: A captured graph that was taken apart.
        parts: Captured bodies of inner loops, by the name that the marker holds.
        weights: Receives the constants that are needed.
    """
    for place, node in enumerate(piece.nodes):
        if node.domain != MARKER_DOMAIN or node.op_type != MARKER:
            continue
        key, states = node.attributes[CALL].as_string(), node.attributes[STATES].as_int()
        part, inner = parts[key]
        _replace_markers(inner, parts, weights)
        values = [value for value in node.inputs if value is not None]
        state, rest = values[:states], values[states:]
        (loop,) = loop_node(
            f"{CORE_NAME}/inner.{key}",
            inner,
            state=state,
            context=rest[: part.contexts],
            tables=dict(zip(part.row_names, rest[part.contexts :], strict=True)),
            trip_count=weights.constant(
                f"loopedge.inner_loops.{part.loops}", np.array(part.loops, np.int64)
            ),
            constant=weights.constant,
        )
        connect(node.outputs, loop.outputs, piece)
        piece.nodes[place] = loop


def _name_all_dims(parts: Parts, axes: Axes) -> None:
    state_and_context = axes.state + axes.context
    name_dims(parts.prelude.graph, axes.inputs)
    name_dims(parts.core.graph, state_and_context)
    name_dims(parts.coda.graph, state_and_context)
    for key, part in parts.inner.items():
        first, *deeper = map(int, key.split("."))
        found: InnerAxes = axes.inner[first]
        for k in deeper:
            found = found.children[k]
        name_dims(part.graph.graph, found.state + found.context)


def _early_exit(
    plan: AssemblyPlan, axes: Axes, inputs: Sequence[ir.Value], weights: Weights
) -> tuple[EarlyExit | None, list[ir.Value]]:
    """Return what ends the Loop early, and the input that holds its tolerance, where there is one.

    That input has no default in the graph: sessions in JavaScript do not list inputs that have one, and drop what they
    are fed for it.
    """
    part = plan.halt
    if part is None:
        return None, []
    named: dict[str | None, ir.Value] = {value.name: value for value in inputs}
    tolerance = []
    if TOLERANCE_INPUT in part.others:
        kind = ir.TensorType(ir.DataType.FLOAT)
        tolerance = [ir.Value(name=TOLERANCE_INPUT, type=kind, shape=ir.Shape([]))]
        named[TOLERANCE_INPUT] = tolerance[0]
    others = tuple(named[name] for name in part.others)
    masks = tuple({0: "batch", 1: "sequence"} for _ in others)
    name_dims(part.graph.graph, axes.state + axes.state + masks[: len(others) - len(tolerance)])
    piece = take_apart(part.graph, f"{CORE_NAME}/halt", weights)
    batched = tuple(names.get(0) == "batch" for names in axes.state)
    return EarlyExit(piece=piece, others=others, batched=batched), tolerance


def _trip_count(
    plan: AssemblyPlan, weights: Weights, inputs: list[ir.Value]
) -> tuple[ir.Value, list[ir.Value], list[ir.Node]]:
    if not plan.dynamic_loops:
        count = weights.constant("loopedge.loops", np.array(plan.loops, np.int64))
        return count, inputs, []
    loops, count, nodes = selected_count(plan.loops, weights.constant, opset=plan.opset)
    return count, [*inputs, loops], nodes


def _named_outputs(coda: Piece, names: Sequence[str]) -> list[ir.Value]:
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
            node.outputs[0].type, node.outputs[0].shape = output.type, copy_shape(output.shape)
            coda.nodes.append(node)
            value = node.outputs[0]
        value.name = name
        outputs.append(value)
    return outputs
