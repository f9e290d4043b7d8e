"""An attention that goes on from a cache by standard operators: TensorScatter and Attention of opset 24.

Keys and values of the chunk are written into the buffer, in place where past and present are one, and the queries read all of
it through a mask. So a call costs as much as the buffer is long, whatever of it is filled.
"""

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.attention.attentions import SelfAttention
from loopedge.graph.decoding.cache.grouped_query import TAKEN_OVER, Parts, with_heads
from loopedge.graph.decoding.chunk import Chunk
from loopedge.graph.editing import add_initializer, insert_before, make_node, replace_node

__all__ = ["OPSET", "ReadableKeys", "raise_opset", "scatter"]

OPSET, IR_VERSION = 24, 12
"""The first that have TensorScatter; opset 24 changes no operator of 23 but for further types."""

LEAST_OPSET = 23
"""From which a graph is raised: older ones have other norms and reductions."""

POSITIONS = 2
"""The axis of (batch, heads, length, head size) along which the buffer is written."""


def raise_opset(model: ir.Model) -> None:
    """Let a graph of opset 23 be one of `OPSET`, in place.

    Raises:
        InputError: Its opset is older.
    """
    opset = model.opset_imports.get("", 0)
    if opset < LEAST_OPSET:
        raise InputError(
            f"its opset is {opset}: the form tensorscatter is made of opset {LEAST_OPSET} or later",
            hint="loopedge export model.pt --opset 23",
        )
    model.opset_imports[""] = max(opset, OPSET)
    model.ir_version = max(model.ir_version, IR_VERSION)


class ReadableKeys:
    """Masks of which keys of the buffer a query reads, one per window; `nodes` compute them in the main graph.

    Args:
        model: Takes the constants.
        chunk: Of the graph.
        cache: A part of the cache, (..., length, head size), an input of the graph.
    """

    def __init__(self, model: ir.Model, chunk: Chunk, cache: ir.Value) -> None:
        self.model = model
        self.nodes: list[ir.Node] = []
        self._masks: dict[int | None, ir.Value] = {}
        zero, one = self._constant("zero", 0), self._constant("one", 1)
        first, axis = self._constant("first", [0]), self._constant("one.axis", [1])
        rank = len(cache.shape or ())
        length = self._add("Shape", [cache], "length", start=rank - 2, end=rank - 1)
        count = self._add("Squeeze", [length, first], "length.count")
        self._keys = self._add("Range", [zero, count, one], "keys")  # (length,)
        sizes = self._add(
            "Concat", [chunk.batch, axis, chunk.sequence, axis], "places.sizes", axis=0
        )
        self._places = self._add("Reshape", [chunk.flat, sizes], "places.apart")  # (B, 1, S, 1)

    def mask(self, window: int | None) -> ir.Value:
        """Return bool (batch, 1, sequence, length): key j is read at position p where j <= p, and with a window p - window < j."""
        if window in self._masks:
            return self._masks[window]
        name = f"readable.{window or 'all'}"
        boolean = ir.DataType.BOOL
        mask = self._add("LessOrEqual", [self._keys, self._places], name, boolean)
        if window is not None:
            width = self._constant(f"window.{window}", window)
            before = self._add("Sub", [self._places, width], f"{name}.before")
            inside = self._add("Greater", [self._keys, before], f"{name}.inside", boolean)
            mask = self._add("And", [mask, inside], f"{name}.both", boolean)
        mask.shape = ir.Shape(["batch", 1, "sequence", "max_length"])
        self._masks[window] = mask
        return mask

    def _constant(self, name: str, data: object) -> ir.Value:
        return add_initializer(self.model.graph, f"chunk/{name}", np.array(data, np.int64))

    def _add(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        name: str,
        dtype: ir.DataType = ir.DataType.INT64,
        **attributes: int,
    ) -> ir.Value:
        node = make_node(op_type, inputs, f"chunk/{name}", attributes)
        node.outputs[0].type = ir.TensorType(dtype)
        self.nodes.append(node)
        return node.outputs[0]


def scatter(
    attention: SelfAttention,
    parts: Parts,
    past: Parts,
    chunk: Chunk,
    readable: ir.Value,
    model: ir.Model,
) -> Parts:
    """Let an attention read and extend the cache by TensorScatter; return keys and values after it.

    Args:
        attention: Stands in the graph; another node takes its place.
        parts: Its keys and values, heads not repeated.
        past: The cache before, (batch, kv heads, length, head size) each, in the graph of the attention.
        chunk: Of the main graph.
        readable: Of `ReadableKeys`.
        model: Takes the constants.
    """
    node = attention.node
    name = node.name or "attention"
    presents = []
    for part, before, what in zip(parts, past, ("key", "value"), strict=True):
        apart = with_heads(node, part, attention, before, model)
        written = make_node(
            "TensorScatter",
            [before, apart, chunk.past],
            f"{name}.{what}",
            {"axis": POSITIONS, "mode": "linear"},
        )
        written.outputs[0].type, written.outputs[0].shape = before.type, before.shape
        insert_before(node, written)
        presents.append(written.outputs[0])
    taken = {each: node.attributes[each].value for each in TAKEN_OVER if each in node.attributes}
    queries = with_heads(node, attention.query, attention, None, model)
    read = make_node("Attention", [queries, *presents, readable], name, taken)
    _give(attention, read, model)
    return presents[0], presents[1]


def _give(attention: SelfAttention, read: ir.Node, model: ir.Model) -> None:
    """Put the node in the place of the attention, whose heads are apart or joined in what it gives."""
    node = attention.node
    if attention.split:
        replace_node(node, [read])
        return
    output = read.outputs[0]
    output.type = attention.query.type
    swap = make_node("Transpose", [output], f"{node.name}.turned", {"perm": (0, 2, 1, 3)})
    width = attention.heads * attention.head_size
    sizes = add_initializer(model.graph, f"chunk/joined.{width}", np.array([0, 0, width], np.int64))
    joined = make_node("Reshape", [swap.outputs[0], sizes], f"{node.name}.joined")
    replace_node(node, [read, swap, joined])
