"""Let an input choose how often the core runs, where nothing but its Loop depends on the count."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.loop_node import AddConstant
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.number_reads import number_reads
from loopedge.graph.core.view import LoopCore
from loopedge.graph.editing import INTEGERS_SINCE, add_initializer
from loopedge.graph.metadata import LOOPS_INPUT, MOST_LOOPS, write_metadata
from loopedge.graph.weights import OWN_PREFIX
from loopedge.options import option

__all__ = ["make_count_selectable", "selected_count"]

ITERATIONS_AXIS = "iterations"


def selected_count(
    most: int, constant: AddConstant, *, opset: int
) -> tuple[ir.Value, ir.Value, list[ir.Node]]:
    """Return an input ``loops``, int64 (), that count clamped to 1 .. ``most``, and the nodes that clamp it.

    Args:
        most: The largest count.
        constant: Adds the constants that are needed.
        opset: Of the model.
    """
    loops = ir.Value(name=LOOPS_INPUT, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    old = opset < INTEGERS_SINCE
    kind = np.dtype(np.float64 if old else np.int64)
    one = constant(f"{OWN_PREFIX}min_loops", np.array(1, kind))
    # Without timestep tables a count past the limit would not fail: it would compute something else, without end.
    limit = constant(f"{OWN_PREFIX}max_loops", np.array(most, kind))
    asked, before = loops, list[ir.Node]()
    if old:
        before = [_node("Cast", [loops], "asked", "double", to=int(ir.DataType.DOUBLE))]
        asked = before[0].outputs[0]
    least = _node("Max", [asked, one], "at_least_one", "positive")
    clamped = _node("Min", [least.outputs[0], limit], "at_most", "clamped")
    nodes = [*before, least, clamped]
    for node in nodes:
        node.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE if old else ir.DataType.INT64)
    if old:
        nodes.append(_node("Cast", clamped.outputs, "whole", "count", to=int(ir.DataType.INT64)))
        nodes[-1].outputs[0].type = loops.type
    return loops, nodes[-1].outputs[0], nodes


def _node(
    op_type: str, inputs: Sequence[ir.Value], name: str, output: str, **attributes: int
) -> ir.Node:
    node = ir.node(op_type, inputs, attributes=attributes, name=f"{LOOPS_INPUT}/{name}")
    node.outputs[0].name, node.outputs[0].shape = f"{LOOPS_INPUT}/{output}", ir.Shape([])
    return node


def make_count_selectable(model: ir.Model) -> int:
    """Let an input ``loops``, int64 (), say how often the core runs, in place.

    Requires: one core, a Loop with a constant trip count, all of whose iterations stand in it.

    Ensures: for the count that stood in the graph it computes what it did; others are clamped to 1 .. the rows of the
    shortest table that the body reads by the number of the iteration, without tables to `MOST_LOOPS`. The metadata, where
    there is one, says so. An output that stacks a value of every iteration has as many rows as run.

    Args:
        model: Of any tool.

    Returns:
        The largest count.

    Raises:
        InputError: There is no such core, or something else depends on the count.
    """
    loop = _only_loop(model)
    count, most = loop.trip_count or 0, _most(loop)
    if count > most:
        raise InputError(f"Loop {loop.name} runs {count} iterations, its tables have {most} rows")
    _check_stacks(loop)
    taken = {value.name for value in model.graph.inputs}
    if LOOPS_INPUT in taken:
        raise InputError(
            f"the graph has an input {LOOPS_INPUT} already, which is not its loop count"
        )
    opset = model.opset_imports.get("", INTEGERS_SINCE)
    loops, clamped, nodes = selected_count(
        most, lambda name, array: add_initializer(model.graph, name, array), opset=opset
    )
    model.graph.inputs.append(loops)
    for node in nodes:
        model.graph.insert_before(loop.node, node)
    loop.replace_count(clamped)
    for stack in loop.stacked:
        if stack.shape is not None and len(stack.shape):
            stack.shape = ir.Shape([ITERATIONS_AXIS, *list(stack.shape)[1:]])
    metadata = Cores(model).metadata
    update = {"dynamic_loops": True, "max_loops": most, "loops": count, "optimized": False}
    if not metadata.foreign:
        write_metadata(metadata.model_copy(update=update), model.metadata_props)
    return most


def _only_loop(model: ir.Model) -> LoopView:
    """Return the Loop of the only core.

    Raises:
        InputError: There is another number of them, an input says its count, or nothing does.
    """
    cores = Cores(model)
    if len(cores) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in cores.iterations.items())
        raise InputError(
            f"the graph holds {len(cores)} Loops ({counts}): one count does not say how often each runs"
        )
    found = next(iter(cores), None)
    if not isinstance(found, LoopCore):
        raise InputError("the graph holds no Loop, so that no input can choose its count")
    loop = found.loop
    if found.last_nodes:
        raise InputError(
            "the last iteration stands behind the Loop",
            hint=option("dynamic_loops", command="export model.pt"),
        )
    if loop.trip_count is None or not 1 <= loop.trip_count <= MOST_LOOPS:
        raise InputError(
            f"Loop {loop.name} has no constant trip count that an input could take over"
        )
    return loop


def _most(loop: LoopView) -> int:
    """Return how often the Loop can run.

    Raises:
        InputError: A node of its body needs the number for something else than a row of a table.
    """
    reads = number_reads(loop)
    for read in reads:
        if read.limit is None:
            table = "" if read.table is None else f", a row of {read.table.name}"
            raise InputError(
                f"{read.node.name or read.node.op_type} ({read.node.op_type}) reads the number of the iteration"
                f"{table}: for how many iterations it holds is not known"
            )
    return min((read.limit or MOST_LOOPS for read in reads), default=MOST_LOOPS)


def _check_stacks(loop: LoopView) -> None:
    """Refuse a stack of what all iterations gave that the graph reads: its rows are no longer so many.

    Raises:
        InputError: As said.
    """
    for stack in loop.stacked:
        readers = list(stack.consumers())
        if readers:
            node = readers[0]
            raise InputError(
                f"{node.name or node.op_type} ({node.op_type}) reads what every iteration of {loop.name} gave: it "
                "needs all of them"
            )
