"""A Loop becomes a Scan, which hands each iteration its own slice of the cache and takes it back in place.

What a Loop gives is always written into new memory. A Scan writes into its output, so that past and present of the cache can
be one buffer. The number of the iteration becomes a state, and the Scan runs as often as the cache has rows.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.decoding.cache.cached_attentions import CachedAttention
from loopedge.graph.decoding.cache.grouped_query import Parts
from loopedge.graph.editing import add_initializer, insert_before

__all__ = ["ITERATION_STATE", "repeat", "scan_loop"]

ITERATION_STATE = "iteration"
"""The first state of the Scan: the number of the iteration, int64 (), from 0."""


def repeat(
    model: ir.Model, cached: Sequence[CachedAttention], presents: Sequence[Parts]
) -> list[Parts]:
    """Make Scans of the Loops around attentions, the inner ones first.

    Args:
        model: The main graph.
        cached: Attentions with their caches.
        presents: Keys and values after each, where it stands.

    Returns:
        Keys and values after each, in the main graph.

    Raises:
        InputError: As `scan_loop`.
    """
    found = list(presents)
    depth = {
        loop.node: len(item.loops) - at for item in cached for at, loop in enumerate(item.loops)
    }
    loops = {loop.node: loop for item in cached for loop in item.loops}
    for loop in sorted(loops.values(), key=lambda loop: -depth[loop.node]):
        own = [place for place, item in enumerate(cached) if loop in item.loops]
        level = {place: cached[place].loops.index(loop) for place in own}
        slices = [part for place in own for part in cached[place].levels[level[place]]]
        wholes = [part for place in own for part in cached[place].levels[level[place] + 1]]
        after = scan_loop(loop, slices, [part for place in own for part in found[place]], model)
        scan = after[0].producer()
        assert scan is not None
        first = len(scan.inputs) - len(wholes)
        for place, (whole, value) in enumerate(zip(wholes, after, strict=True)):
            scan.replace_input_with(first + place, whole)
            value.name = f"{whole.name}.after"
            value.type, value.shape = whole.type, ir.Shape(list(whole.shape or ()))
        for at, place in enumerate(own):
            found[place] = after[2 * at], after[2 * at + 1]
    return found


def scan_loop(
    loop: LoopView, pasts: Sequence[ir.Value], presents: Sequence[ir.Value], model: ir.Model
) -> list[ir.Value]:
    """Put a Scan in the place of a Loop.

    Requires: the condition never ends the Loop; the body reads ``pasts``, which nothing makes yet.

    Args:
        loop: Of the main graph; it stands in no graph afterwards.
        pasts: Values of the body: slices of the cache before the iteration.
        presents: Values of the body: the same slices after it.
        model: Takes the constants.

    Returns:
        Outputs of the Scan without names: all iterations of ``presents``, (loops, ...).
        The scan inputs of the node are left to be set: there are as many as ``pasts``, behind the states.

    Raises:
        InputError: Something ends the Loop early, or it says no number of iterations.
    """
    node, body, graph = loop.node, loop.body, loop.node.graph
    if graph is None:
        raise ValueError(f"Loop {loop.name} stands in no graph")
    if not loop.runs_on or loop.count is None:
        raise InputError(f"a condition ends {loop.name} early: its cache would have holes")
    prefix = f"{loop.name}/"
    iteration = loop.iteration
    iteration.type, iteration.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
    states, stacked = loop.after, list(body.outputs[1 + len(loop.initial) :])
    one = add_initializer(model.graph, "loopedge.one", np.array(1, np.int64))
    zero = add_initializer(model.graph, "loopedge.zero", np.array(0, np.int64))
    following = ir.node("Add", [iteration, one], name=f"{prefix}{ITERATION_STATE}.next")
    following.outputs[0].name = f"{prefix}{ITERATION_STATE}.next"
    following.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    following.outputs[0].shape = ir.Shape([])
    _drop_condition(loop)
    body.append(following)
    outputs = [following.outputs[0], *states, *stacked, *presents]
    body.outputs[:] = _made_once(body, outputs, prefix)
    body.inputs.extend(pasts)
    initial = list(node.inputs[2:])
    attribute = node.attributes["body"]
    scan = ir.Node(
        "",
        "Scan",
        [zero, *initial, *[None] * len(pasts)],
        [attribute, ir.AttrInt64("num_scan_inputs", len(pasts))],
        num_outputs=1 + len(node.outputs) + len(presents),
        name=node.name,
    )
    scan.outputs[0].name = f"{prefix}iterations"
    scan.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    insert_before(node, scan)
    for old, new in zip(node.outputs, scan.outputs[1:], strict=False):
        name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = name
    graph.remove(node, safe=True)
    return list(scan.outputs[1 + len(node.outputs) :])


def _drop_condition(loop: LoopView) -> None:
    """Take the condition out of the body: it never ends the Loop."""
    body, condition = loop.body, loop.condition
    body.outputs.pop(0)
    while True:
        users = [node for node in condition.consumers() if not any(o.uses() for o in node.outputs)]
        gone = [
            node
            for node in users
            if node.graph is body and not any(o.is_graph_output() for o in node.outputs)
        ]
        if not gone:
            break
        for node in gone:
            body.remove(node, safe=True)
    if condition.uses():  # as one Identity after another
        raise InputError(f"the body of {loop.name} computes with its condition")
    body.inputs.pop(1)


def _made_once(body: ir.Graph, outputs: Sequence[ir.Value], prefix: str) -> list[ir.Value]:
    """Return outputs of which each is made by a node of the body of its own: a Scan that gives one twice computes wrongly."""
    seen: set[ir.Value] = set()
    found = []
    for place, value in enumerate(outputs):
        maker = value.producer()
        if value in seen or maker is None or maker.graph is not body:
            copy = ir.node("Identity", [value], name=f"{prefix}output.{place}")
            made = copy.outputs[0]
            made.name, made.type, made.shape = f"{prefix}output.{place}", value.type, value.shape
            body.append(copy)
            value = made
        seen.add(value)
        found.append(value)
    return found
