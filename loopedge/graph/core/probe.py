"""Look inside the loops: make values of the cores extra outputs, one row per iteration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.names import CORE_NAME, core_in_name, loop_name, name_in_iteration
from loopedge.graph.core.view import CoreView, LoopCore, UnrolledCore
from loopedge.graph.editing import add_initializer, make_node

__all__ = ["activation_of", "can_probe", "probe", "stack_probed"]

PREFIX = "probe/"
STACKED = "probes/"
INPUT = ".input"


def probe(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of the model that also gives values of its inside.

    Requires: the loop form or the unrolled form, of any tool; no two bodies hold a value or a node of one name that
    is asked for.

    Ensures: the outputs of the model are as they were; a Loop with an early exit runs to its end, with all batch
    rows.

    Args:
        model: Loop or unrolled form, of one core or several. Not modified.
        names: Of values, those of a core as in the loop form, or ``<node>.input``: what a linear
            reads (`activation_of`), in a core or outside.

    Returns:
        A model with extra outputs, to be read with `stack_probed`: ``probe/<name>``, of a core
        ``probes/<name>`` (iterations, ...) in the loop form, ``probe/core.<t>/...`` in the unrolled one.

    Raises:
        InputError: There is no value or node of a name.
    """
    probed = model.clone()
    cores, main = Cores(probed), _Lookup(probed.graph)
    inside: dict[str, CoreView] = {}
    for core in cores:
        found: list[str] = []
        if isinstance(core, LoopCore):
            _run_to_the_end(core)
            body = _Lookup(core.loop.body)
            found = [name for name in names if name in body]
        elif isinstance(core, UnrolledCore):
            own = (name for name in names if core_in_name(name) == core.name)
            found = [name for name in own if (name_in_iteration(name, 0) or "") in main]
        inside = {**dict.fromkeys(found, core), **inside}
    for name in names:
        if name not in inside:
            _emit(probed.graph, main[name], f"{PREFIX}{name}")
    for probed_core in dict.fromkeys(inside.values()):
        own_names = [name for name in names if inside.get(name) is probed_core]
        if isinstance(probed_core, LoopCore):
            _probe_loop(probed_core, own_names)
        elif isinstance(probed_core, UnrolledCore):
            _probe_unrolled(probed_core, own_names)
    return probed


def _run_to_the_end(core: LoopCore) -> None:
    """Let no batch row of a Loop with an early exit be done before the last iteration, in place."""
    if core.exit is None:
        return
    body, before, done = core.loop.body, core.loop.condition, core.exit.done
    go_on = ir.node("Identity", [before], name=f"{CORE_NAME}/go_on")
    go_on.outputs[0].name = "condition.always"
    go_on.outputs[0].type, go_on.outputs[0].shape = before.type, before.shape
    body.append(go_on)
    core.loop.replace_next_condition(go_on.outputs[0])
    never = add_initializer(core.model.graph, "loopedge.false", np.array(False))
    never_done = make_node("And", [done, never], f"{CORE_NAME}/never_done")
    never_done.outputs[0].type, never_done.outputs[0].shape = done.type, done.shape
    ir.convenience.replace_all_uses_with(done, never_done.outputs[0])
    never_done.replace_input_with(0, done)
    body.insert_before(body[0], never_done)


def can_probe(cores: Cores, node: ir.Node) -> bool:
    """Tell whether `probe` sees what a node reads: it stands in the main graph, or in the body of a core's Loop.

    What stands in a branch of an If runs in some inferences alone, what stands in a Scan once per position.
    """
    return node.graph in [cores.model.graph, *(core.loop.body for core in cores.loops)]


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
    """Collect what a probed model gave: per name one array, (iterations, ...), outside the cores (1, ...)."""
    stacked = {}
    for name in names:
        if STACKED + name in outputs:
            stacked[name] = outputs[STACKED + name]
            continue
        if PREFIX + name in outputs:
            stacked[name] = outputs[PREFIX + name][None]
            continue
        rows: list[npt.NDArray[Any]] = []
        while (key := f"{PREFIX}{name_in_iteration(name, len(rows))}") in outputs:
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


def _probe_loop(core: LoopCore, names: list[str]) -> None:
    loop, graph = core.loop, core.model.graph
    lookup = _Lookup(loop.body)
    extra = [_emit(loop.body, lookup[name], f"{PREFIX}{name}.row") for name in names]
    for name, row, output in zip(names, extra, loop.widen(len(extra)), strict=True):
        output.name, output.type = f"{STACKED}{name}", row.type
        if row.shape is not None:
            output.shape = ir.Shape([None, *row.shape])
        graph.outputs.append(output)


def _probe_unrolled(core: UnrolledCore, names: list[str]) -> None:
    lookup = _Lookup(core.model.graph)
    for name in names:
        for t in range(core.iterations or 1):
            place = name_in_iteration(name, t) or name
            source = lookup[place] if name.endswith(INPUT) else _made_in(lookup, name, t)
            _emit(core.model.graph, source, f"{PREFIX}{place}")


def _made_in(lookup: _Lookup, name: str, t: int) -> ir.Value:
    """Find the value of iteration ``t`` that has this name in the loop form.

    By its node: the last state may carry the name of a graph output.
    """
    first = lookup[name_in_iteration(name, 0) or name]
    maker = first.producer()
    if maker is not None:
        twin = lookup.nodes.get(name_in_iteration(loop_name(maker), t))
        if twin is not None:
            return twin.outputs[maker.outputs.index(first)]
    raise InputError(f"iteration {t} of the core makes no value {name}")
