"""What depends on stored values alone, computed once."""

import logging
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import initializer
from loopedge.graph.operators import Fact, having
from loopedge.graph.rolling.canonical_passes.common_nodes import has_body, is_random
from loopedge.graph.rolling.canonical_passes.constant_session import compute
from loopedge.graph.rolling.canonical_passes.content import is_constant
from loopedge.graph.rolling.canonical_passes.moved_weights import SMALL_BYTES, VIEWS

__all__ = ["fold_constants"]

log = logging.getLogger(__name__)

GROWTH_BYTES = 1 << 20
"""What is folded together may take so many bytes more than what it is made of."""
BATCH_BYTES = 16 << 20
"""What reads more stored bytes than this is computed in a session of its own: others need not wait in memory."""
MOST_SESSIONS = 40
"""Where ONNX Runtime refuses some constants, so many sessions look for those that it takes."""
DEQUANTIZING = frozenset({"DequantizeLinear"})
"""They are computed for what is folded, and stay for what is not: stored integers stay integers."""
MOVES = VIEWS | {"Transpose"}
NO_LARGER = (
    having(Fact.UNARY)
    | having(Fact.VIEW)
    | having(Fact.SIZE)
    | having(Fact.REDUCTION)
    | {"Compress", "NonZero", "Slice", "Split", "Squeeze", "Transpose", "Unique", "Concat", "TopK"}
)
"""Where the shapes of their results are not known, these still give no more than they take."""
FOLDED_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
"""What NumPy and ONNX Runtime hand each other without a copy."""


def fold_constants(model: ir.Model) -> bool:
    """Replace what nodes of the main graph compute of stored values alone by its value, in place.

    All is computed in one session of ONNX Runtime, but for what reads many megabytes. What it refuses stays.

    Requires: nodes stand in an order in which they can run; types and shapes are noted as far as they are known.

    Ensures: what is random, holds a body or takes much more memory than it was made of stays; what dequantizes stays where
    something reads it that is not folded, and nothing that is made of it takes more memory; a stored weight that is only
    moved or widened is left to `loopedge.graph.rolling.canonical_passes.moved_weights`.

    Returns:
        Whether anything changed.
    """
    kept: set[ir.Node] = set()
    while True:
        groups = _groups(_constant_nodes(model.graph, kept))
        swollen = [node for group in groups for node in group.swollen()]
        if not swollen:
            break
        kept.update(swollen)
    return _fold(model, [group for group in groups if group.ends])


class _Group:
    """Nodes that are folded together: each reads what another one makes, or a large weight in common with it."""

    def __init__(self, nodes: list[ir.Node]) -> None:
        self.nodes = nodes
        gone = set(nodes) - _stay(nodes)
        self.ends = [
            value
            for node in nodes
            if node in gone
            for value in node.outputs
            if any(user not in gone for user in value.consumers())
        ]
        self.stored = [
            value
            for value in dict.fromkeys(value for node in nodes for value in node.inputs)
            if value is not None and value.const_value is not None
        ]
        self.read_bytes = sum(_bytes(value) or 0 for value in self.stored)
        self._freed = sum(
            _bytes(value) or 0
            for value in self.stored
            if not value.is_graph_output() and all(user in gone for user in value.consumers())
        )
        quantized = any(node.op_type in DEQUANTIZING for node in nodes)
        self._growth_bytes = SMALL_BYTES if quantized else GROWTH_BYTES

    def swollen(self) -> list[ir.Node]:
        """Return the nodes whose results are not worth their memory: none where the group is no larger than before."""
        taken = {value: _bytes(value) or 0 for value in self.ends}
        if sum(taken.values()) - self._freed <= self._growth_bytes:
            return []
        largest = max(taken.values())
        large = [value for value, size in taken.items() if size > max(SMALL_BYTES, largest // 2)]
        makers = (value.producer() for value in large)
        return [node for node in dict.fromkeys(makers) if node is not None]


def _stay(nodes: list[ir.Node]) -> set[ir.Node]:
    """Return the nodes that dequantize for something that is not folded."""
    inside = set(nodes)
    return {
        node
        for node in nodes
        if node.op_type in DEQUANTIZING
        and any(user not in inside for user in node.outputs[0].consumers())
    }


def _fold(model: ir.Model, groups: list[_Group]) -> bool:
    changed, sessions = False, 0
    waiting = list(_batches(groups))
    while waiting:
        batch = waiting.pop()
        ends = [value for group in batch for value in group.ends]
        try:
            sessions += 1
            arrays = compute(model, [node for group in batch for node in group.nodes], ends)
        except Exception as error:  # what ONNX Runtime raises has no common class
            half = len(batch) // 2
            if half and sessions < MOST_SESSIONS:
                waiting += [batch[half:], batch[:half]]
            else:
                log.info("%d constants were not folded: %s", len(ends), error)
            continue
        _replace(model.graph, ends, arrays)
        changed = True
    return changed


def _batches(groups: list[_Group]) -> Iterator[list[_Group]]:
    """Yield groups that are computed in one session: all together, but for those that read much."""
    small = [group for group in groups if group.read_bytes <= BATCH_BYTES]
    if small:
        yield small
    for group in groups:
        if group.read_bytes > BATCH_BYTES:
            yield [group]


def _constant_nodes(graph: ir.Graph, kept: set[ir.Node]) -> list[ir.Node]:
    made: set[ir.Value] = set()
    nodes = []
    for node in graph:
        constant = all(
            value is None or value in made or is_constant(value) for value in node.inputs
        )
        if constant and node not in kept and _may_fold(node, made):
            nodes.append(node)
            made.update(node.outputs)
    return nodes


def _may_fold(node: ir.Node, made: set[ir.Value]) -> bool:
    read = [value for value in node.inputs if value is not None]
    if has_body(node) or is_random(node) or not read:
        return False
    if "Dequantize" in node.op_type and node.op_type not in DEQUANTIZING:
        return False
    if any(value.is_graph_output() for value in node.outputs):
        return False
    if any(value.dtype not in FOLDED_TYPES for value in read):
        return False
    taken = sum(_bytes(value) or 0 for value in read)
    first = read[0]
    if first not in made and (_bytes(first) or 0) > SMALL_BYTES and node.op_type in MOVES:
        return False
    for value in node.outputs:
        if not value.name:
            continue
        given = _bytes(value)
        if value.dtype not in FOLDED_TYPES or (given is None and node.op_type not in NO_LARGER):
            return False
        if given is not None and given > taken:
            widened = node.op_type == "Cast" and given > SMALL_BYTES
            large = given > GROWTH_BYTES and node.op_type not in DEQUANTIZING
            if widened or large:
                return False
    return True


def _bytes(value: ir.Value) -> int | None:
    """Return what a value takes; None where it is not known."""
    if value.const_value is not None:
        return int(value.const_value.nbytes)
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return None
    return (math.prod(value.shape.numpy()) * value.dtype.bitwidth + 7) // 8


def _groups(nodes: Iterable[ir.Node]) -> list[_Group]:
    """Group nodes that belong together, in the order of their first."""
    leaders: dict[ir.Node | ir.Value, ir.Node | ir.Value] = {}

    def leader(item: ir.Node | ir.Value) -> ir.Node | ir.Value:
        while (above := leaders.setdefault(item, item)) is not item:
            leaders[item] = leaders.setdefault(above, above)  # halve the path
            item = above
        return item

    ordered = list(nodes)
    inside = set(ordered)
    for node in ordered:
        leader(node)
        for value in node.inputs:
            if value is None:
                continue
            maker = value.producer()
            if maker is not None and maker in inside:
                leaders[leader(maker)] = leader(node)
            elif (_bytes(value) or 0) > SMALL_BYTES:
                leaders[leader(value)] = leader(node)
    members: dict[ir.Node | ir.Value, list[ir.Node]] = {}
    for node in ordered:
        members.setdefault(leader(node), []).append(node)
    return [_Group(group) for group in members.values()]


def _replace(graph: ir.Graph, ends: list[ir.Value], arrays: list[npt.NDArray[np.generic]]) -> None:
    for value, array in zip(ends, arrays, strict=True):
        name, number = f"{value.name}.folded", 0
        while name in graph.initializers:
            number += 1
            name = f"{value.name}.folded.{number}"
        made = initializer(name, array)
        graph.register_initializer(made)
        ir.convenience.replace_all_uses_with(value, made)
