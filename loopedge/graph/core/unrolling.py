"""Turn the loop form into the unrolled form: the nodes r times, the weights once."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import CORE_NAME, LAST_PREFIX, iteration_prefix
from loopedge.graph.core.view import LoopCore, iteration_number, view_core
from loopedge.graph.editing import add_initializer, remove_identities
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import write_metadata
from loopedge.options import option

__all__ = ["copy_iteration", "unroll"]

MOST_NODES = 100_000
"""Of an unrolled graph."""


def unroll(model: ir.Model, loops: int | None = None) -> ir.Model:
    """Return the model with its core written out once per iteration.

    Requires: one Loop that runs all its iterations; it may hold Loops itself.

    Ensures: exactly the same computation, for this count alone; the metadata says so.

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
    core = view_core(unrolled)
    if not isinstance(core, LoopCore):
        raise InputError("the graph holds no Loop that could be unrolled")
    loop, metadata = core.loop, core.metadata
    counts = [value for value in unrolled.graph.inputs if chooses_loops(value)]
    loops = metadata.loops if loops is None else loops
    if loops is None and counts:
        raise InputError(
            f"the loop count is an input of the graph, {counts[0].name}",
            hint=f"name it with {option('loops', 'N')}",
        )
    if loops is None:
        raise InputError("the loop count is known only when the graph runs: it cannot be unrolled")
    _check_size(loop.body, loops)
    states = loop.initial
    if loop.stacked:
        raise InputError("a Loop with stacked (scan) outputs cannot be unrolled")
    if not loop.runs_on:
        raise InputError(
            "a Loop that stops early has no unrolled form",
            hint="loopedge export model.pt --exit none",
        )
    always = add_initializer(unrolled.graph, "loopedge.true", np.array(True))
    behind = _name_last(core, loops)
    for t in range(loops - 1 if behind else loops):
        number = iteration_number(unrolled.graph, t)
        nodes, states = copy_iteration(
            unrolled.graph, loop.body, iteration_prefix(t), [number, always, *states]
        )
        unrolled.graph.insert_before(loop.node, nodes)
    _finish(unrolled.graph, loop, states)
    if not metadata.foreign:
        update = {"form": "unrolled", "loops": loops, "dynamic_loops": False, "optimized": False}
        write_metadata(metadata.model_copy(update=update), unrolled.metadata_props)
    remove_identities(unrolled)
    common.RemoveUnusedNodesPass()(unrolled)
    for value in counts:
        if not value.uses():
            unrolled.graph.inputs.remove(value)
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


def _name_last(core: LoopCore, loops: int) -> bool:
    """Name a last iteration that stands behind the Loop as the unrolled form does; is there one?"""
    graph, nodes, prefix = core.model.graph, core.last_nodes, iteration_prefix(loops - 1)
    for node in nodes:
        node.name = _renamed(node.name, prefix)
        for output in node.outputs:
            output.name = _renamed(output.name, prefix)
    count = core.loop.count
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


def _finish(graph: ir.Graph, loop: LoopView, states: list[ir.Value | None]) -> None:
    for output, state in zip(loop.final, states, strict=True):
        if state is None:
            continue
        if output.is_graph_output():  # keeps the output's name
            name = output.name
            copy = ir.node("Identity", [state], name=f"{CORE_NAME}/{name}")
            copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
            graph.insert_before(loop.node, copy)
            ir.convenience.replace_all_uses_with(
                output, copy.outputs[0], replace_graph_outputs=True
            )
            copy.outputs[0].name = name
        else:
            ir.convenience.replace_all_uses_with(output, state)
    graph.remove(loop.node, safe=True)
    # Bodies would count as readers of the weights for as long as they exist, the innermost first.
    for node in reversed([loop.node, *_with_inner(loop.body)]):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                body.outputs.clear()
                body.remove(list(body), safe=True)
