"""What the body of a Loop reads by the number of the iteration: tables, whose rows say how far it can run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.known_values import constant_of
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.scans.scan_view import ScanView
from loopedge.graph.metadata import MOST_LOOPS
from loopedge.graph.shapes import known_shape

__all__ = ["NumberRead", "number_reads", "rows_read", "tables_read"]

SAME_NUMBER = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators behind which a number is still that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRead:
    """A node that the number of the iteration reaches.

    ``table`` is what it takes row t of, in iteration t, where it does that: a value of the graph around the Loop, or a
    constant; ``rows`` are as many as it is known to have. ``last`` is the largest number that comes through: a smaller
    one is taken in its place from then on.
    """

    node: ir.Node
    table: ir.Value | None = None
    rows: int | None = None
    last: int | None = None

    @property
    def limit(self) -> int | None:
        """How many iterations it serves; None: that is not known."""
        if self.rows is None:
            return None
        held = self.last is not None and self.last < self.rows
        return MOST_LOOPS if held else min(self.rows, MOST_LOOPS)


def number_reads(loop: LoopView | ScanView) -> list[NumberRead]:
    """Return the nodes that take the number of the iteration, behind those that only pass it on.

    What computes with it as a float is not among them: it serves any number.
    """
    inside: set[ir.Graph | ir.Function] = {loop.body, *loop.body.subgraphs()}
    found: list[NumberRead] = []
    waiting: list[tuple[ir.Value, int | None]] = [(loop.iteration, None)]
    for value, last in waiting:
        for node, place in value.uses():
            smaller = _least(node)
            if node.op_type in SAME_NUMBER and not node.domain and place == 0:
                if not _is_float(node):
                    waiting.append((node.outputs[0], last))
            elif smaller is not None:
                waiting.append((node.outputs[0], smaller if last is None else min(smaller, last)))
            else:
                found.append(_read(node, place, last, inside))
    return found


def tables_read(loop: LoopView | ScanView) -> list[ir.Value]:
    """Return the stored tables of which iteration t takes row t, each once."""
    tables = (read.table for read in number_reads(loop) if read.table is not None)
    return [table for table in dict.fromkeys(tables) if constant_of(table) is not None]


def rows_read(nodes: Iterable[ir.Node], t: int) -> list[ir.Value]:
    """Return the stored tables of which nodes of iteration ``t``, written out, take row t, each once."""
    found: dict[ir.Value, None] = {}
    for node in nodes:
        table, number = (*node.inputs, None, None)[:2]
        rowwise = node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0
        if table is None or number is None or not rowwise or node.domain:
            continue
        at = constant_of(number)
        same = at is not None and not len(at.shape) and int(at.numpy().item()) == t
        if same and constant_of(table) is not None:
            found[table] = None
    return list(found)


def _read(
    node: ir.Node, place: int, last: int | None, inside: set[ir.Graph | ir.Function]
) -> NumberRead:
    table = node.inputs[0] if place == 1 else None
    rowwise = node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0
    if table is None or not rowwise or node.domain:
        return NumberRead(node=node, last=last)
    constant = constant_of(table)
    if constant is None and _graph_of(table) in inside:  # of the state, or of what is made of it
        return NumberRead(node=node, last=last)
    shape = known_shape(table) if constant is None else list(constant.shape)
    rows = shape[0] if shape else None
    return NumberRead(
        node=node, table=table, rows=int(rows) if isinstance(rows, int) else None, last=last
    )


def _graph_of(value: ir.Value) -> ir.Graph | ir.Function | None:
    maker = value.producer()
    return value.graph if maker is None else maker.graph


def _is_float(node: ir.Node) -> bool:
    kind = node.attributes.get_int("to", int(ir.DataType.INT64))
    return node.op_type == "Cast" and ir.DataType(kind).is_floating_point()


def _least(node: ir.Node) -> int | None:
    """Return the constant that a node takes the smaller one against; None where it does something else."""
    if node.op_type != "Min" or node.domain or len(node.inputs) != 2:
        return None
    return next(_numbers(node), None)


def _numbers(node: ir.Node) -> Iterator[int]:
    for value in node.inputs:
        tensor = None if value is None else constant_of(value)
        if tensor is not None and tensor.size == 1 and tensor.dtype.is_integer():
            yield int(tensor.numpy().item())
