"""Turn the loop form into the unrolled form: the nodes r times, the weights once."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.editing import add_initializer
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import read_metadata, write_metadata
from loopedge.options import option

__all__ = [
    "CORE_NAME",
    "LAST_PREFIX",
    "copy_iteration",
    "find_core",
    "inner_loops",
    "iteration_number",
    "runs_on",
    "trip_count",
    "unroll",
]

CORE_NAME = "core"
"""Name of the Loop node, and prefix of the names of its nodes."""

MOST_NODES = 100_000
"""Of an unrolled graph."""

LAST_PREFIX = f"{CORE_NAME}.last/"
"""Prefix of the nodes of a last iteration that stands behind the Loop (`loopedge.graph.rows.last_rows`)."""


def find_core(model: ir.Model) -> ir.Node | None:
    """Return the Loop node that repeats the core, or None when the graph has none.

    A graph that loopedge did not write qualifies when it holds exactly one Loop.
    """
    loops = [node for node in model.graph if node.op_type == "Loop" and not node.domain]
    named = [node for node in loops if node.name == CORE_NAME]
    if named:
        return named[0]
    return loops[0] if len(loops) == 1 else None


def trip_count(loop: ir.Node) -> int | None:
    """Return the constant trip count of a Loop; None where it has none, or no single number."""
    value = loop.inputs[0]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or not tensor.dtype.is_integer():
        return None
    return int(tensor.numpy().item())


def inner_loops(model: ir.Model) -> list[str]:
    """Return the names of Loops that stand in the body of another."""
    return [
        node.name or node.op_type
        for graph in model.graph.subgraphs()
        for node in graph
        if node.op_type == "Loop" and not node.domain
    ]


def unroll(model: ir.Model, loops: int | None = None) -> ir.Model:
    """Return the model with its core written out once per iteration.

    Args:
        model: The loop form. Not modified.
        loops: Iterations to write; default: the count in the metadata.

    Returns:
        A new model; nodes and values of iteration t are named ``core.<t>/...``, weights and
        timestep tables are shared, a table is read with a constant index.

    Raises:
        InputError: There is no Loop, it stops early, it stacks outputs, or the count is unknown.
    """
    unrolled = model.clone()
    loop = find_core(unrolled)
    if loop is None:
        raise InputError("the graph holds no Loop that could be unrolled")
    metadata = read_metadata(unrolled.metadata_props)
    loops = metadata.loops if loops is None else loops
    if loops is None:
        raise InputError("the loop count is unknown", hint=f"name it with {option('loops', 'N')}")
    body = loop.attributes["body"].as_graph()
    _check_size(body, loops)
    states = list(loop.inputs[2:])
    if len(loop.outputs) != len(states):
        raise InputError("a Loop with stacked (scan) outputs cannot be unrolled")
    if not runs_on(body):
        raise InputError(
            "a Loop that stops early has no unrolled form",
            hint="loopedge export model.pt --exit none",
        )
    always = add_initializer(unrolled.graph, "loopedge.true", np.array(True))
    behind = _name_last(unrolled.graph, loop, loops)
    for t in range(loops - 1 if behind else loops):
        number = iteration_number(unrolled.graph, t)
        nodes, states = copy_iteration(
            unrolled.graph, body, f"{CORE_NAME}.{t}/", [number, always, *states]
        )
        unrolled.graph.insert_before(loop, nodes)
    _finish(unrolled.graph, loop, states)
    if not metadata.foreign:
        update = {"form": "unrolled", "loops": loops, "dynamic_loops": False, "optimized": False}
        write_metadata(metadata.model_copy(update=update), unrolled.metadata_props)
    common.IdentityEliminationPass()(unrolled)
    common.RemoveUnusedNodesPass()(unrolled)
    _drop_loops_input(unrolled.graph)
    return unrolled


def _check_size(body: ir.Graph, loops: int) -> None:
    """Refuse what would take minutes and gigabytes to write out.

    Raises:
        InputError: It has more nodes than `MOST_NODES`.
    """
    nodes = loops * sum(1 for _ in body.all_nodes())
    if nodes > MOST_NODES:
        raise InputError(
            f"{loops} loops written out have {nodes:,} nodes, at most {MOST_NODES:,} are written",
            hint=f"{option('form', 'loop')}, or fewer loops",
        )


def runs_on(body: ir.Graph) -> bool:
    """Tell whether the condition of a Loop body never ends the Loop."""
    condition: ir.Value | None = body.outputs[0]
    while condition is not None and condition is not body.inputs[1]:
        producer = condition.producer()
        if producer is None or producer.op_type != "Identity":
            tensor = ir.convenience.get_const_tensor(condition)
            return tensor is not None and bool(tensor.numpy().all())
        condition = producer.inputs[0]
    return condition is not None


def iteration_number(graph: ir.Graph, t: int) -> ir.Value:
    """Return the initializer that holds the number of an iteration, int64 ()."""
    return add_initializer(graph, f"loopedge.iteration.{t}", np.array(t, np.int64))


def _name_last(graph: ir.Graph, loop: ir.Node, loops: int) -> bool:
    """Name a last iteration that stands behind the Loop as the unrolled form does; is there one?"""
    nodes = [node for node in graph.all_nodes() if (node.name or "").startswith(LAST_PREFIX)]
    prefix = f"{CORE_NAME}.{loops - 1}/"
    for node in nodes:
        node.name = _renamed(node.name, prefix)
        for output in node.outputs:
            output.name = _renamed(output.name, prefix)
    count = loop.inputs[0]
    if nodes and count is not None:  # the trip count is the number of the last iteration
        number = iteration_number(graph, loops - 1)
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value is count:
                    node.replace_input_with(index, number)
    return bool(nodes)


def _renamed(name: str | None, prefix: str) -> str | None:
    found = (name or "").startswith(LAST_PREFIX)
    return prefix + (name or "").removeprefix(LAST_PREFIX) if found else name


def copy_iteration(
    graph: ir.Graph, body: ir.Graph, prefix: str, inputs: list[ir.Value | None]
) -> tuple[list[ir.Node], list[ir.Value | None]]:
    """Copy the nodes of one iteration out of a Loop body.

    Args:
        graph: Around the Loop; initializers of the body move there.
        body: Of the Loop. Not modified.
        prefix: Of the names of nodes and values, instead of ``core/``.
        inputs: The number of the iteration, the condition, the states before it.

    Returns:
        The nodes, in no graph yet, and the states after the iteration.

    Raises:
        InputError: A state is not given.
    """
    step = body.clone(allow_outer_scope_values=True)
    outputs: list[ir.Value | None] = list(step.outputs[1:])
    step.outputs.clear()
    for value, source in zip(list(step.inputs), inputs, strict=True):
        if source is None:
            raise InputError("the Loop carries an optional state that is not given")
        ir.convenience.replace_all_uses_with(value, source)
        outputs = [source if output is value else output for output in outputs]
    step.inputs.clear()
    _adopt_initializers(graph, step)
    nodes = list(step)
    step.remove(nodes)
    for node in _with_inner(nodes):
        node.name = _named(node.name or node.op_type, prefix)
        for output in node.outputs:
            output.name = _named(output.name or f"{node.name}.output", prefix)
    return nodes, outputs


def _with_inner(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Yield nodes, and behind each those of the bodies that it holds: of Loops inside the core."""
    for node in nodes:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _with_inner(attribute.as_graph())


def _adopt_initializers(graph: ir.Graph, step: ir.Graph) -> None:
    """Point a body's own initializers at one copy in the main graph."""
    for name, value in list(step.initializers.items()):
        if value.const_value is not None:
            shared = add_initializer(graph, name, value.const_value)
            ir.convenience.replace_all_uses_with(value, shared)
    step.initializers.clear()


def _named(name: str, prefix: str) -> str:
    return prefix + name.removeprefix(f"{CORE_NAME}/")


def _finish(graph: ir.Graph, loop: ir.Node, states: list[ir.Value | None]) -> None:
    for output, state in zip(list(loop.outputs), states, strict=True):
        if state is None:
            continue
        if output.is_graph_output():  # keeps the output's name
            name = output.name
            copy = ir.node("Identity", [state], name=f"{CORE_NAME}/{name}")
            copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
            graph.insert_before(loop, copy)
            ir.convenience.replace_all_uses_with(
                output, copy.outputs[0], replace_graph_outputs=True
            )
            copy.outputs[0].name = name
        else:
            ir.convenience.replace_all_uses_with(output, state)
    graph.remove(loop, safe=True)
    # Bodies would count as readers of the weights for as long as they exist, the innermost first.
    for node in reversed([loop, *_with_inner(loop.attributes["body"].as_graph())]):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                body.outputs.clear()
                body.remove(list(body), safe=True)


def _drop_loops_input(graph: ir.Graph) -> None:
    """Drop the input that named the loop count, once nothing reads it."""
    for value in list(graph.inputs):
        if chooses_loops(value) and not value.uses():
            graph.inputs.remove(value)
