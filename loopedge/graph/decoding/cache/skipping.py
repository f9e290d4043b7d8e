"""A token that is done computes no further iteration: an ``If`` around the body of the Scan.

Models with an early exit carry two states beside their own: ``done``, bool (batch,), and how many iterations ran. One token at
a time of one text decides for itself; a chunk of several, as a prompt, runs all iterations. The iterations that a token skips
have no keys and values of it. What later tokens, which may go deeper, find there is the policy:

| policy | what a skipped iteration keeps of the token |
|---|---|
| ``copy`` | keys and values of the last iteration that ran |
| ``holes`` | nothing: zeros, which later tokens attend to |
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.decoding.cache.grouped_query import MICROSOFT
from loopedge.graph.decoding.chunk import IDS_INPUT
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.metadata import ITERATIONS_OUTPUT, TOLERANCE_INPUT
from loopedge.options import option

__all__ = ["ExitPolicy", "run_on", "skip_done"]

ExitPolicy = Literal["copy", "holes"]

GROUPED = "GroupQueryAttention"
PREFIX = "exit/"


def run_on(model: ir.Model, *, tolerance: float | None, never: bool = False) -> None:
    """Let the Loop of a model with an early exit run all iterations; what is done keeps its state, as before.

    Ensures: the outputs are the same; the input ``tolerance`` is a constant.

    Args:
        model: Changed.
        tolerance: Where the exit has one.
        never: Nothing is ever done.

    Raises:
        InputError: No Loop carries what is done.
    """
    for value in [value for value in model.graph.inputs if value.name == TOLERANCE_INPUT]:
        held = add_initializer(
            model.graph, f"{PREFIX}{TOLERANCE_INPUT}", np.array(tolerance, np.float32)
        )
        ir.convenience.replace_all_uses_with(value, held)
        model.graph.inputs.remove(value)
    loop = _ended_loop(model)
    held = add_initializer(model.graph, "loopedge.true", np.array(True))
    on = make_node("Identity", [held], f"{PREFIX}on")
    on.outputs[0].type, on.outputs[0].shape = held.type, held.shape
    loop.body.append(on)
    loop.replace_next_condition(on.outputs[0])
    if never:
        place = _done_place(loop.before)
        same = make_node("Identity", [loop.before[place]], f"{PREFIX}never")
        same.outputs[0].type, same.outputs[0].shape = (
            loop.before[place].type,
            loop.before[place].shape,
        )
        loop.body.append(same)
        loop.body.outputs[1 + place] = same.outputs[0]


def _ended_loop(model: ir.Model) -> LoopView:
    found = [loop for loop in loops_among(model.graph) if not loop.runs_on]
    if len(found) != 1:
        raise InputError(
            f"{len(found)} Loops end early, one is needed",
            hint=option("exit", "none", command="export model.pt"),
        )
    return found[0]


def _done_place(states: Sequence[ir.Value]) -> int:
    """Return which state says what is done: the only one of booleans."""
    places = [place for place, state in enumerate(states) if state.dtype == ir.DataType.BOOL]
    if len(places) != 1:
        raise InputError("no state of the Loop says which rows are done")
    return places[0]


def skip_done(model: ir.Model, policy: ExitPolicy) -> None:
    """Put an ``If`` around the body of the Scan, and give how many iterations ran.

    Requires: a generate graph of GroupQueryAttention, made of a Loop that `run_on` has changed.

    Ensures: the batch is 1; an output ``iterations`` int64 (1,).

    Args:
        model: Changed.
        policy: What a skipped iteration keeps.

    Raises:
        InputError: The graph holds no such Scan.
    """
    scans = [node for node in model.graph if node.op_type == "Scan"]
    if len(scans) != 1:
        raise InputError("an early exit for each token needs one Scan", hint=option("form", "scan"))
    scan = _Scan(scans[0])
    single = _is_single(model)
    written = [part for each in scan.attentions for part in each.inputs[1:3] if part is not None]
    last = [
        _like(value, f"{PREFIX}last.{place}")
        for place, value in enumerate(written if policy == "copy" else [])
    ]
    then = _then_branch(scan, last)
    other = _else_branch(scan, written[: len(last)], single)
    outputs = [
        _like(value, f"{PREFIX}{value.name}") for value in (*scan.after, *last, *scan.presents)
    ]
    branch = ir.Node(
        "",
        "If",
        [scan.done],
        [ir.AttrGraph("then_branch", then), ir.AttrGraph("else_branch", other)],
        outputs=outputs,
        name=f"{PREFIX}if",
    )
    scan.body.append(branch)
    _replace_scan(model, scan, last, outputs)
    _fix_batch(model)


class _Scan:
    """A Scan of a generate graph: the number of the iteration, states, slices of the cache."""

    def __init__(self, node: ir.Node) -> None:
        self.node, self.body = node, node.attributes["body"].as_graph()
        slices = node.attributes["num_scan_inputs"].as_int()
        self.count = len(self.body.inputs) - slices - 1
        self.states = list(self.body.inputs[1 : 1 + self.count])
        self.slices = list(self.body.inputs[1 + self.count :])
        self.after = list(self.body.outputs[1 : 1 + self.count])
        self.presents = list(self.body.outputs[1 + self.count :])
        self.done_place = _done_place(self.states)
        self.attentions = [each for each in self.body if each.op_type == GROUPED]

    @property
    def done(self) -> ir.Value:
        """Whether the token is done, bool (1,)."""
        return self.states[self.done_place]


def _like(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, type=value.type, shape=value.shape)


def _is_single(model: ir.Model) -> ir.Value:
    """Return whether the chunk is one token, bool (1,)."""
    ids = next(value for value in model.graph.inputs if value.name == IDS_INPUT)
    one = add_initializer(model.graph, f"{PREFIX}one", np.array([1], np.int64))
    count = make_node("Shape", [ids], f"{PREFIX}tokens", {"start": 1, "end": 2})
    single = make_node("Equal", [count.outputs[0], one], f"{PREFIX}single")
    count.outputs[0].type, count.outputs[0].shape = one.type, one.shape
    single.outputs[0].type, single.outputs[0].shape = ir.TensorType(ir.DataType.BOOL), one.shape
    model.graph.insert_before(model.graph[0], [count, single])
    return single.outputs[0]


def _then_branch(scan: _Scan, last: Sequence[ir.Value]) -> ir.Graph:
    """Return what a token that is done computes: next to nothing."""
    nodes = [make_node("Identity", [value], f"{PREFIX}same.{value.name}") for value in scan.states]
    nodes += [make_node("Identity", [value], f"{PREFIX}same.{value.name}") for value in last]
    outputs = [node.outputs[0] for node in nodes]
    if last:
        for place, attention in enumerate(scan.attentions):
            writing = _writing(attention, last[2 * place], last[2 * place + 1])
            nodes.append(writing)
            outputs += writing.outputs[1:]
    else:
        keeping = [make_node("Identity", [value], f"{PREFIX}{value.name}") for value in scan.slices]
        nodes += keeping
        outputs += [node.outputs[0] for node in keeping]
    for value, like in zip(outputs, (*scan.states, *last, *scan.slices), strict=True):
        value.type, value.shape = like.type, like.shape
    return ir.Graph([], outputs, nodes=nodes, name=f"{PREFIX}then")


def _writing(attention: ir.Node, key: ir.Value, value: ir.Value) -> ir.Node:
    """Return an attention that writes keys and values, and reads one position: its own."""
    heads = attention.attributes["kv_num_heads"].as_int()
    attributes = {"num_heads": heads, "kv_num_heads": heads, "local_window_size": 1}
    node = ir.Node(
        MICROSOFT,
        GROUPED,
        [key, key, value, *attention.inputs[3:]],
        [ir.convenience.convert_attribute(name, held) for name, held in attributes.items()],
        num_outputs=3,
        name=f"{PREFIX}{attention.name}",
    )
    for output, part in zip(node.outputs, ("output", "key", "value"), strict=True):
        output.name = f"{PREFIX}{attention.name}.{part}"
    node.outputs[0].type, node.outputs[0].shape = key.type, key.shape
    return node


def _else_branch(scan: _Scan, written: Sequence[ir.Value], single: ir.Value) -> ir.Graph:
    """Move the iteration into a branch; what it gives to the next one are its outputs."""
    following = scan.body.outputs[0].producer()
    nodes = [node for node in scan.body if node is not following]
    while len(scan.body.outputs) > 1:
        scan.body.outputs.pop()
    scan.body.remove(nodes)
    done = scan.after[scan.done_place]
    alone = make_node("And", [done, single], f"{PREFIX}done")
    alone.outputs[0].type, alone.outputs[0].shape = done.type, done.shape
    after = list(scan.after)
    after[scan.done_place] = alone.outputs[0]
    kept = [make_node("Identity", [value], f"{PREFIX}kept.{value.name}") for value in written]
    for node, value in zip(kept, written, strict=True):
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    outputs = [*after, *(node.outputs[0] for node in kept), *scan.presents]
    return ir.Graph([], outputs, nodes=[*nodes, alone, *kept], name=f"{PREFIX}else")


def _replace_scan(
    model: ir.Model, scan: _Scan, last: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> None:
    """Put a Scan with the further states in the place of the old one."""
    old, body = scan.node, scan.body
    slices = [body.inputs.pop(1 + scan.count) for _ in scan.slices]
    body.inputs.extend([*last, *slices])
    body.outputs.extend(outputs)
    first = 1 + scan.count
    starts = _zeros(model, old, last)
    wider = ir.Node(
        "",
        "Scan",
        [*old.inputs[:first], *starts, *old.inputs[first:]],
        list(old.attributes.values()),
        num_outputs=len(old.outputs) + len(last),
        name=old.name,
    )
    insert_before(old, wider)
    following = [*wider.outputs[:first], *wider.outputs[first + len(last) :]]
    for before, after in zip(old.outputs, following, strict=True):
        after.name, after.type, after.shape = before.name, before.type, before.shape
        ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    for place, value in enumerate(last):
        unread = wider.outputs[first + place]
        unread.name, unread.type, unread.shape = f"{value.name}.final", value.type, value.shape
    model.graph.remove(old, safe=True)
    counted = [value for value in wider.outputs[1:first] if value.dtype == ir.DataType.INT64]
    if len(counted) == 1:
        counted[0].name, counted[0].shape = ITERATIONS_OUTPUT, ir.Shape([1])
        model.graph.outputs.append(counted[0])


def _zeros(model: ir.Model, before: ir.Node, last: Sequence[ir.Value]) -> list[ir.Value]:
    """Return what keys and values of the last iteration are before the first one: (1, sequence, width) of zeros."""
    ids = next(value for value in model.graph.inputs if value.name == IDS_INPUT)
    found: dict[int, ir.Value] = {}
    for value in last:
        width = value.shape[-1] if value.shape is not None else None
        assert isinstance(width, int)
        if width in found:
            continue
        name = f"{PREFIX}zeros.{width}"
        sizes = make_node("Shape", [ids], f"{name}.ids")
        held = add_initializer(model.graph, f"{name}.width", np.array([width], np.int64))
        whole = make_node("Concat", [sizes.outputs[0], held], f"{name}.sizes", {"axis": 0})
        zeros = make_node("ConstantOfShape", [whole.outputs[0]], name)
        for node in (sizes, whole):
            node.outputs[0].type = held.type
        zeros.outputs[0].type, zeros.outputs[0].shape = value.type, value.shape
        for node in (sizes, whole, zeros):
            insert_before(before, node)
        found[width] = zeros.outputs[0]
    return [found[value.shape[-1]] for value in last]  # type: ignore[index]


def _fix_batch(model: ir.Model) -> None:
    """Let the batch be 1: what is done is asked once for all rows."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            sizes = [1 if str(size) == "batch" else size for size in value.shape]
            value.shape = ir.Shape(sizes)
