"""Write Loops out: the nodes of a body once per iteration, the weights once.

| what | is called |
|---|---|
| nodes of iteration ``t`` of the core, and of the only Loop of another tool's graph | ``core.<t>/...`` |
| those of further Loops of the main graph, in its order | ``core2.<t>/...``, ``core3.<t>/...`` |
| iteration ``j`` of a Loop ``core.<t>/x`` inside an iteration, where these are written out too | ``core.<t>/x.<j>/...`` |
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.core.iterations.copying import (
    bodies_of,
    copy_iteration,
    dismantle,
    forget_sizes,
    share_constants,
)
from loopedge.graph.core.iterations.counts import LoopCounts
from loopedge.graph.core.iterations.entries import read_entries, stack_entries
from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.names import LAST_PREFIX, core_name, is_core, iteration_prefix
from loopedge.graph.core.pieces import copy_shape
from loopedge.graph.core.view import CoreView, LoopCore, iteration_number, view_cores
from loopedge.graph.editing import add_initializer, make_node, remove_identities
from loopedge.graph.metadata import Metadata, read_metadata, write_metadata
from loopedge.graph.naming import rename_foreign_steps
from loopedge.options import option

__all__ = ["UnrolledLoop", "Unrolling", "unroll", "unroll_loops"]

MOST_NODES = 100_000
"""Of an unrolled graph."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrolledLoop:
    """A Loop of the main graph that was written out.

    ``name`` is that of the source, nodes of iteration t are called ``<core>.<t>/...``; ``nodes`` are those of one
    iteration, ``states`` are handed on by it, ``stacked`` outputs held an entry of every iteration.
    """

    name: str
    core: str
    iterations: int
    nodes: int
    states: int
    stacked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrolling:
    """An unrolled graph and what was written out in it.

    ``inner`` counts the Loops inside iterations that were written out too, ``inner_left`` those that stay; ``fixed``
    holds, by name, the inputs that chose the loop count, which the graph takes no more.
    """

    model: ir.Model
    loops: list[UnrolledLoop]
    inner: int
    inner_left: int
    fixed: dict[str, int]


def unroll(model: ir.Model, loops: int | None = None, *, inner: bool = False) -> ir.Model:
    """Return the model with its Loops written out, as `unroll_loops` does it."""
    return unroll_loops(model, loops, inner=inner).model


def unroll_loops(model: ir.Model, loops: int | None = None, *, inner: bool = False) -> Unrolling:
    """Write out the Loops of a graph: of one that loopedge wrote the cores, of another every one of the main graph.

    Requires: Loops that run all their iterations, a number that the graph or ``loops`` says.

    Ensures: exactly the same computation, for this count alone; the metadata says so. Inputs and outputs keep their
    names; the input that chose the count is gone. Weights and timestep tables are shared, also those that a body
    stored itself; a table is read with a constant index. A stack is put together of its entries; where a single entry
    is read, that is read itself.

    Args:
        model: The loop form, or a graph of another tool. Not modified.
        loops: Iterations to write where an input chooses them; default: the count in the metadata.
        inner: Write out the Loops inside of iterations too.

    Raises:
        InputError: There is no Loop, one of them stops early, its count is unknown or another one, or there would be
            more than `MOST_NODES` nodes.
    """
    unrolled = model.clone()
    if any(loops_among(function.graph.all_nodes()) for function in unrolled.functions.values()):
        common.InlinePass()(unrolled)
    metadata = read_metadata(unrolled.metadata_props)
    if metadata.foreign:
        rename_foreign_steps(unrolled)
    cores = view_cores(unrolled)
    looped = [core for core in cores if isinstance(core, LoopCore)]
    if not looped and not (inner and any(core.inner_loops for core in cores)):
        raise _nothing_to_unroll(cores)
    writer = _Writer(unrolled, metadata, loops)
    written = writer.write_main(looped)
    if inner:
        writer.write_inner(list(unrolled.graph))
    left = loops_among(unrolled.graph.all_nodes())
    writer.finish()
    _describe(unrolled, metadata, written)
    return Unrolling(
        model=unrolled,
        loops=written,
        inner=writer.inner,
        inner_left=len(left),
        fixed={
            value.name or "": int(array.reshape(-1)[0])
            for value, array in writer.counts.fixed.items()
        },
    )


def _nothing_to_unroll(cores: Sequence[CoreView]) -> InputError:
    """Return what to say of a graph without a Loop of its own."""
    if not cores:
        return InputError("the graph holds no Loop that could be unrolled")
    left = any(core.inner_loops for core in cores)
    return InputError(
        "the graph is unrolled already"
        + (", apart from the Loops inside iterations" if left else ""),
        hint=option("inner", "unrolled") if left else None,
    )


def _describe(model: ir.Model, metadata: Metadata, written: Sequence[UnrolledLoop]) -> None:
    """Let the metadata say what the graph is now."""
    if metadata.foreign:
        return
    update: dict[str, Any] = {"form": "unrolled", "dynamic_loops": False, "optimized": False}
    if written:
        update["loops"] = written[0].iterations
    if metadata.cores is not None:
        update["cores"] = metadata.cores | {loop.core: loop.iterations for loop in written}
    write_metadata(metadata.model_copy(update=update), model.metadata_props)


class _Writer:
    """Writes Loops out, in place.

    Args:
        model: Of the Loops.
        metadata: What it says of itself.
        loops: The count where an input chooses it.
    """

    def __init__(self, model: ir.Model, metadata: Metadata, loops: int | None) -> None:
        self.model, self.graph, self.metadata = model, model.graph, metadata
        self.counts = LoopCounts(model, metadata, loops)
        self.inner = 0
        self._nodes = 0
        values = [*model.graph.inputs, *(each for node in model.graph for each in node.outputs)]
        shapes = (value.shape for value in values if value.shape is not None)
        axes = (axis for shape in shapes for axis in shape if not isinstance(axis, int))
        self._axes = {axis.value for axis in axes if axis.value is not None}

    def write_main(self, cores: Sequence[LoopCore]) -> list[UnrolledLoop]:
        """Write out Loops of the main graph; of a core one iteration may stand behind its Loop."""
        behind = [int(bool(core.last_nodes)) for core in cores]
        counts = self.counts.of_all([core.loop for core in cores], behind)
        written = []
        for place, (core, count, last) in enumerate(zip(cores, counts, behind, strict=True)):
            loop, name = core.loop, core_name(place)
            if not self.metadata.foreign and is_core(core.name):
                name = core.name
            found = UnrolledLoop(
                name=loop.name,
                core=name,
                iterations=count,
                nodes=sum(1 for _ in loop.body.all_nodes()),
                states=len(loop.initial),
                stacked=len(loop.stacked),
            )
            if last:
                _name_last(core, count)
            self._write(loop, name, count - last)
            written.append(found)
        return written

    def write_inner(self, nodes: Iterable[ir.Node]) -> None:
        """Write out the Loops among nodes, and those in what they hold."""
        for node in nodes:
            if found := loops_among([node]):
                self.inner += 1
                self.write_inner(self._write(found[0], found[0].name, self.counts.of(found[0])))
                continue
            for body in bodies_of(node):
                self.write_inner(list(body))

    def finish(self) -> None:
        """Remove what is not read any more, the inputs that chose the count among it."""
        remove_identities(self.model)
        read_entries(self.model)
        remove_identities(self.model)
        common.RemoveUnusedNodesPass()(self.model)
        for value, array in self.counts.fixed.items():
            if value.uses():
                constant = add_initializer(self.graph, f"loopedge.count.{value.name}", array)
                ir.convenience.replace_all_uses_with(value, constant)
            if value.is_graph_output():
                continue
            self.graph.inputs.remove(value)
            self.graph.initializers.pop(value.name or "", None)

    def _write(self, loop: LoopView, core: str, count: int) -> list[ir.Node]:
        """Write out a Loop, and return the nodes of its iterations."""
        _check_body(loop)
        self.counts.check_condition(loop)
        self._check_size(loop, count)
        graph, body, first = loop.node.graph, loop.body, len(loop.initial)
        if graph is None:
            raise ValueError(f"Loop {loop.name} stands in no graph")
        share_constants(self.graph, body)
        if self.metadata.foreign:
            forget_sizes(loop, self._axes)
        always = add_initializer(self.graph, "loopedge.true", np.array(True))
        states: list[ir.Value | None] = loop.initial
        stacks: list[list[ir.Value]] = [[] for _ in loop.stacked]
        written: list[ir.Node] = []
        for t in range(count):
            prefix, number = iteration_prefix(t, core), iteration_number(self.graph, t)
            parent = core.rpartition("/")[0] or core
            nodes, after = copy_iteration(
                body, prefix, [number, always, *states], names=(core, loop.name, parent)
            )
            graph.insert_before(loop.node, nodes)
            written += nodes
            states = list(after[:first])
            for stack, entry in zip(stacks, after[first:], strict=False):
                stack.append(entry)
        for state, final in zip(states, loop.final, strict=False):
            if state is not None:
                _replace(loop.node, final, state, core)
        for output, stack in zip(loop.stacked, stacks, strict=True):
            self._stack(loop, output, stack, core)
        graph.remove(loop.node, safe=True)
        dismantle(loop.node)
        return written

    def _check_size(self, loop: LoopView, count: int) -> None:
        """Refuse what would take minutes and gigabytes to write out.

        Raises:
            InputError: As said.
        """
        self._nodes += count * sum(1 for _ in loop.body.all_nodes())
        if self._nodes > MOST_NODES:
            raise InputError(
                f"{count} loops written out have {self._nodes:,} nodes, at most {MOST_NODES:,} are written",
                hint="name fewer loops",
            )

    def _stack(self, loop: LoopView, output: ir.Value, entries: list[ir.Value], core: str) -> None:
        """Put the entries of all iterations together."""
        place, number = loop.node, loop.node.outputs.index(output)
        if place.graph is None or not (output.uses() or output.is_graph_output()):
            return
        opset = self.model.opset_imports.get("", 21)
        nodes = stack_entries(entries, f"{core}/stack.{number}", self.graph, opset)
        stack = nodes[-1].outputs[0]
        stack.type, stack.shape = output.type, copy_shape(output.shape)
        place.graph.insert_before(place, nodes)
        _replace(place, output, stack, core)


def _check_body(loop: LoopView) -> None:
    """Refuse a body that does not take or give the states of its Loop.

    Raises:
        InputError: As said.
    """
    states, taken, after = len(loop.initial), len(loop.body.inputs), len(loop.body.outputs)
    if taken != states + 2 or after < max(states + 1, len(loop.node.outputs) + 1):
        raise InputError(
            f"Loop {loop.name} has {states} states and {len(loop.node.outputs)} outputs, its body {taken} inputs and "
            f"{after} outputs"
        )


def _replace(place: ir.Node, output: ir.Value, value: ir.Value, core: str) -> None:
    """Let a value take the place of an output of a node; an output of the graph keeps its name."""
    if output.is_graph_output() and place.graph is not None:
        name = output.name
        copy = make_node("Identity", [value], f"{core}/{name}")
        copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
        place.graph.insert_before(place, copy)
        ir.convenience.replace_all_uses_with(output, copy.outputs[0], replace_graph_outputs=True)
        copy.outputs[0].name = name
        copy.outputs[0].meta.clear()
    else:
        ir.convenience.replace_all_uses_with(output, value)


def _name_last(core: LoopCore, loops: int) -> None:
    """Name a last iteration that stands behind the Loop as the unrolled form does."""
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


def _renamed(name: str | None, prefix: str) -> str | None:
    found = (name or "").startswith(LAST_PREFIX)
    return prefix + (name or "").removeprefix(LAST_PREFIX) if found else name
