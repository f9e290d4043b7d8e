"""Look inside the loop: make values of the core extra outputs, one row per iteration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.unrolling import CORE_NAME, find_core
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.metadata import read_metadata
from loopedge.graph.weights import iteration_of, loop_count

__all__ = ["probe", "stack_probed", "state_names"]

PREFIX = "probe/"
STACKED = "probes/"
UNROLLED_CORE = f"{CORE_NAME}."
INPUT = ".input"


def state_names(model: ir.Model) -> list[str]:
    """Return the names of the states that an iteration hands on, without their iteration.

    They are the same in the loop form and in the unrolled form; an unrolled graph of one iteration
    names none.
    """
    loop = find_core(model)
    if loop is not None:
        outputs = loop.attributes["body"].as_graph().outputs[1:]
        return [value.name or "" for value in outputs if _is_float(value)]
    names = []
    for node in model.graph:
        if iteration_of(node) != 0:
            continue
        names += [
            (output.name or "").replace(f"{CORE_NAME}.0/", f"{CORE_NAME}/", 1)
            for output in node.outputs
            if any(iteration_of(user) == 1 for user in output.consumers())
        ]
    return names


def _is_float(value: ir.Value) -> bool:
    """Tell a state from what an early exit carries: which rows are done, how often they ran."""
    return value.dtype is None or value.dtype.is_floating_point()


def probe(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of the model that also gives values of its inside.

    A loop that stops early runs to its end in the copy, with all rows.

    Args:
        model: Loop or unrolled form. Not modified.
        names: Of values, those of the core as in the loop form, or ``<node>.input``: what a linear
            reads (`activation_of`), in the core or outside.

    Returns:
        A model with extra outputs, to be read with `stack_probed`: ``probe/<name>``, of the core
        ``probes/<name>`` (loops, ...) in the loop form, ``probe/core.<t>/...`` in the unrolled one.

    Raises:
        InputError: There is no value or node of a name.
    """
    probed = model.clone()
    loop = find_core(probed)
    if loop is not None:
        _run_to_the_end(probed, loop)
    main = _Lookup(probed.graph)
    if loop is None:
        inside = [name for name in names if _first_iteration(name) in main]
    else:
        body = _Lookup(loop.attributes["body"].as_graph())
        inside = [name for name in names if name in body]
    for name in names:
        if name not in set(inside):
            _emit(probed.graph, main[name], f"{PREFIX}{name}")
    if loop is not None and inside:
        _probe_loop(probed, loop, inside)
    elif inside:
        _probe_unrolled(probed, inside)
    return probed


def _run_to_the_end(model: ir.Model, loop: ir.Node) -> None:
    """Let no row of a Loop that loopedge wrote be done before the last iteration, in place."""
    metadata = read_metadata(model.metadata_props)
    if metadata.exit is None:
        return
    body = loop.attributes["body"].as_graph()
    go_on = ir.node("Identity", [body.inputs[1]], name=f"{CORE_NAME}/go_on")
    go_on.outputs[0].name = "condition.always"
    go_on.outputs[0].type, go_on.outputs[0].shape = body.inputs[1].type, body.inputs[1].shape
    body.append(go_on)
    body.outputs[0] = go_on.outputs[0]
    done = body.inputs[-2]  # before it the states, behind it how many iterations each row ran
    never = add_initializer(model.graph, "loopedge.false", np.array(False))
    nobody = make_node("And", [done, never], f"{CORE_NAME}/never_done")
    nobody.outputs[0].type, nobody.outputs[0].shape = done.type, done.shape
    ir.convenience.replace_all_uses_with(done, nobody.outputs[0])
    nobody.replace_input_with(0, done)
    body.insert_before(body[0], nobody)


def _first_iteration(name: str) -> str:
    rest = name.removeprefix(f"{CORE_NAME}/")
    return "" if rest == name else f"{UNROLLED_CORE}0/{rest}"


def activation_of(node: ir.Node) -> ir.Value | None:
    """Return what a linear reads: its first input, or for a tied head the one that is turned."""
    first, second = node.inputs[:2]
    if first is not None and first.const_value is not None and second is not None:
        turn = second.producer()
        return turn.inputs[0] if turn is not None and turn.op_type == "Transpose" else second
    return first


def stack_probed(
    outputs: Mapping[str, npt.NDArray[Any]], names: Iterable[str]
) -> dict[str, npt.NDArray[Any]]:
    """Collect what a probed model gave: per name one array, (loops, ...), outside the core (1, ...)."""
    stacked = {}
    for name in names:
        if STACKED + name in outputs:
            stacked[name] = outputs[STACKED + name]
            continue
        if PREFIX + name in outputs:
            stacked[name] = outputs[PREFIX + name][None]
            continue
        rest = name.removeprefix(f"{CORE_NAME}/")
        rows: list[npt.NDArray[Any]] = []
        while (key := f"{PREFIX}{UNROLLED_CORE}{len(rows)}/{rest}") in outputs:
            rows.append(outputs[key])
        stacked[name] = np.stack(rows)
    return stacked


class _Lookup:
    """Values of a graph by their name, and what its linears read by ``<node>.input``."""

    def __init__(self, graph: ir.Graph) -> None:
        self.values = {output.name: output for node in graph for output in node.outputs}
        self.values.update({value.name: value for value in graph.inputs})
        self.nodes = {node.name: node for node in graph}

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str) -> ir.Value:
        found = self._find(name)
        if found is None:
            raise InputError(f"the graph has no value {name}")
        return found

    def _find(self, name: str) -> ir.Value | None:
        node = self.nodes.get(name.removesuffix(INPUT)) if name.endswith(INPUT) else None
        return self.values.get(name) if node is None else activation_of(node)


def _emit(graph: ir.Graph, source: ir.Value, name: str) -> ir.Value:
    copy = ir.node("Identity", [source], name=name)
    copy.outputs[0].name = name
    copy.outputs[0].type, copy.outputs[0].shape = source.type, source.shape
    graph.append(copy)
    graph.outputs.append(copy.outputs[0])
    return copy.outputs[0]


def _probe_loop(model: ir.Model, loop: ir.Node, names: list[str]) -> None:
    body = loop.attributes["body"].as_graph()
    lookup = _Lookup(body)
    extra = [_emit(body, lookup[name], f"{PREFIX}{name}.row") for name in names]
    states = len(loop.outputs)
    wider = ir.Node(
        "",
        "Loop",
        loop.inputs,
        loop.attributes.values(),
        num_outputs=states + len(extra),
        name=loop.name,
    )
    model.graph.insert_before(loop, wider)
    for old, new in zip(loop.outputs, wider.outputs[:states], strict=True):
        final_name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name = final_name
    model.graph.remove(loop)
    for name, row, output in zip(names, extra, wider.outputs[states:], strict=True):
        output.name, output.type = f"{STACKED}{name}", row.type
        if row.shape is not None:
            output.shape = ir.Shape([None, *row.shape])
        model.graph.outputs.append(output)


def _probe_unrolled(model: ir.Model, names: list[str]) -> None:
    lookup = _Lookup(model.graph)
    for name in names:
        rest = name.removeprefix(f"{CORE_NAME}/")
        for t in range(loop_count(model) or 1):
            source = (
                lookup[f"{UNROLLED_CORE}{t}/{rest}"]
                if name.endswith(INPUT)
                else _made_in(lookup, rest, t)
            )
            _emit(model.graph, source, f"{PREFIX}{UNROLLED_CORE}{t}/{rest}")


def _made_in(lookup: _Lookup, rest: str, t: int) -> ir.Value:
    """Find the value of iteration ``t`` that is called ``rest`` in iteration 0.

    By its node: the last state may carry the name of a graph output.
    """
    first = lookup[f"{UNROLLED_CORE}0/{rest}"]
    maker = first.producer()
    if maker is not None:
        suffix = (maker.name or "").removeprefix(f"{UNROLLED_CORE}0/")
        twin = lookup.nodes.get(f"{UNROLLED_CORE}{t}/{suffix}")
        if twin is not None:
            return twin.outputs[maker.outputs.index(first)]
    raise InputError(f"iteration {t} of the core makes no value {rest}")
