"""An attention that goes on from a cache: ``com.microsoft.GroupQueryAttention`` in the place of ``Attention``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.attention.attentions import SelfAttention
from loopedge.graph.decoding.chunk import Chunk
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.shapes import constant_ints, known_shape

__all__ = ["MICROSOFT", "TAKEN_OVER", "Parts", "group_queries", "with_heads", "without_repeats"]

MICROSOFT = "com.microsoft"
SWAP_HEADS = (0, 2, 1, 3)
TAKEN_OVER = ("scale", "softcap")
HEAD_SIZE_STEP = 8

Parts = tuple[ir.Value, ir.Value]
"""Keys and values."""


def without_repeats(attention: SelfAttention) -> Parts:
    """Return keys and values before each head was repeated for the queries that share it."""
    parts = []
    for part in (attention.key, attention.value):
        source = _repeated(part) if attention.split else None
        parts.append(part if source is None else source)
    one, two = (known_shape(part) for part in parts)
    if one is None or two is None or one[1] != two[1]:
        return attention.key, attention.value
    return parts[0], parts[1]


def _repeated(value: ir.Value) -> ir.Value | None:
    """Return what ``Reshape(Expand(Unsqueeze(x, 2)))`` repeats along its heads, (batch, heads, sequence, head size)."""
    joined = value.producer()
    wide = None if joined is None or joined.op_type != "Reshape" else joined.inputs[0]
    spread = None if wide is None else wide.producer()
    if spread is None or spread.op_type not in {"Expand", "Tile"} or spread.inputs[0] is None:
        return None
    apart = spread.inputs[0].producer()
    if apart is None or apart.op_type != "Unsqueeze":
        return None
    source, axes = apart.inputs[0], constant_ints(apart.inputs[1])
    before, after = known_shape(source), known_shape(value)
    if source is None or before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    heads, many = before[1], after[1]
    whole = isinstance(heads, int) and isinstance(many, int) and many % heads == 0
    return source if axes in ([2], [-3]) and whole and before[3] == after[3] else None


def group_queries(
    attention: SelfAttention,
    parts: Parts,
    past: Parts,
    chunk: Chunk,
    model: ir.Model,
    *,
    attributes: dict[str, Any] | None = None,
    scales: Sequence[ir.Value] = (),
) -> Parts:
    """Put a node that reads and extends the cache in the place of an attention; return keys and values after it.

    Args:
        attention: Stands in the graph.
        parts: Its keys and values, heads not repeated.
        past: The cache before, (batch, kv heads, length, head size) each, in the graph of the attention.
        chunk: Of the main graph.
        model: Takes the constants.
        attributes: Of a cache of integers.
        scales: Of keys and values, where the cache is rounded.

    Raises:
        InputError: The operator does not take heads of such a size.
    """
    node = attention.node
    if attention.head_size % HEAD_SIZE_STEP:
        raise InputError(
            f"{node.name} has heads of {attention.head_size}: GroupQueryAttention takes multiples of {HEAD_SIZE_STEP}",
            hint="loopedge to-generate MODEL --form tensorscatter",
        )
    heads = [attention.heads, *(_heads(attention, part) for part in parts)]
    flat = [
        _joined(node, value, count, attention.head_size, model) if attention.split else value
        for value, count in zip((attention.query, *parts), heads, strict=True)
    ]
    taken = {name: node.attributes[name].value for name in TAKEN_OVER if name in node.attributes}
    if taken.get("softcap") == 0:
        del taken["softcap"]
    window = {} if attention.window is None else {"local_window_size": attention.window}
    counts = {"num_heads": heads[0], "kv_num_heads": heads[1]}
    inputs: list[ir.Value | None] = [*flat, *past, chunk.before_last, chunk.longest]
    if scales:
        inputs += [None] * 5 + list(scales)
    name = node.name or "attention"
    grouped = ir.Node(
        MICROSOFT,
        "GroupQueryAttention",
        inputs,
        [
            ir.convenience.convert_attribute(k, v)
            for k, v in (counts | taken | window | (attributes or {})).items()
        ],
        num_outputs=3,
        name=name,
    )
    result, *presents = grouped.outputs
    for part, value in zip(("key", "value"), presents, strict=True):
        value.name = f"{name}.{part}"
        value.type, value.shape = past[0].type, past[0].shape
    insert_before(node, grouped)
    _take_place(attention, result, model)
    model.opset_imports.setdefault(MICROSOFT, 1)
    return presents[0], presents[1]


def with_heads(
    node: ir.Node,
    value: ir.Value,
    attention: SelfAttention,
    cache: ir.Value | None,
    model: ir.Model,
) -> ir.Value:
    """Return (batch, heads, sequence, head size) of queries, keys or values.

    Args:
        node: Before which nodes are put.
        value: As the attention reads it, heads not repeated.
        attention: Whose it is.
        cache: Of keys or values, (batch, kv heads, length, head size); None: queries.
        model: Takes the constants.
    """
    if attention.split:
        return value
    shape = known_shape(cache)
    heads = attention.heads if shape is None else shape[1]
    assert isinstance(heads, int)
    size = attention.head_size
    sizes = add_initializer(
        model.graph, f"chunk/split.{heads}x{size}", np.array([0, 0, heads, size], np.int64)
    )
    apart = make_node("Reshape", [value, sizes], f"{value.name}.apart")
    apart.outputs[0].type = value.type
    apart.outputs[0].shape = ir.Shape(["batch", "sequence", heads, size])
    swap = make_node("Transpose", [apart.outputs[0]], f"{value.name}.split", {"perm": SWAP_HEADS})
    swap.outputs[0].type = value.type
    swap.outputs[0].shape = ir.Shape(["batch", heads, "sequence", size])
    insert_before(node, apart)
    insert_before(node, swap)
    return swap.outputs[0]


def _heads(attention: SelfAttention, part: ir.Value) -> int:
    shape = known_shape(part)
    if attention.split and shape is not None and isinstance(shape[1], int):
        return shape[1]
    return attention.kv_heads


def _joined(
    node: ir.Node, value: ir.Value, heads: int, head_size: int, model: ir.Model
) -> ir.Value:
    """Return (batch, sequence, heads x head size) of (batch, heads, sequence, head size)."""
    swap = value.producer()
    if swap is not None and swap.op_type == "Transpose" and _perm(swap) == SWAP_HEADS:
        apart = swap.inputs[0]
    else:
        turned = make_node("Transpose", [value], f"{value.name}.turned", {"perm": SWAP_HEADS})
        insert_before(node, turned)
        apart = turned.outputs[0]
        apart.type, apart.shape = value.type, ir.Shape(["batch", "sequence", heads, head_size])
    reshape = None if apart is None else apart.producer()
    source = None if reshape is None or reshape.op_type != "Reshape" else reshape.inputs[0]
    shape = known_shape(source)
    if (
        source is not None
        and shape is not None
        and len(shape) == 3
        and shape[2] == heads * head_size
    ):
        return source
    joined = make_node("Reshape", [apart, _width(model, heads * head_size)], f"{value.name}.joined")
    insert_before(node, joined)
    output = joined.outputs[0]
    output.type = value.type
    output.shape = ir.Shape(["batch", "sequence", heads * head_size])
    return output


def _width(model: ir.Model, width: int) -> ir.Value:
    return add_initializer(model.graph, f"chunk/joined.{width}", np.array([0, 0, width], np.int64))


def _take_place(attention: SelfAttention, result: ir.Value, model: ir.Model) -> None:
    """Let what read the attention read the new node's output, (batch, sequence, heads x head size)."""
    node, old = attention.node, attention.node.outputs[0]
    width = attention.heads * attention.head_size
    result.name = f"{node.name}.output"
    result.type, result.shape = attention.query.type, ir.Shape(["batch", "sequence", width])
    if attention.split:
        for user in list(old.consumers()):
            joined = _join_of(user, width)
            if joined is not None:
                ir.convenience.replace_all_uses_with(joined, result, replace_graph_outputs=True)
        if old.uses() or old.is_graph_output():
            sizes = add_initializer(
                model.graph,
                f"chunk/split.{attention.heads}x{attention.head_size}",
                np.array([0, 0, attention.heads, attention.head_size], np.int64),
            )
            apart = make_node("Reshape", [result, sizes], f"{node.name}.apart")
            apart.outputs[0].type = result.type
            apart.outputs[0].shape = ir.Shape(
                ["batch", "sequence", attention.heads, attention.head_size]
            )
            swap = make_node(
                "Transpose", [apart.outputs[0]], f"{node.name}.split", {"perm": SWAP_HEADS}
            )
            swap.outputs[0].type, swap.outputs[0].shape = old.type, old.shape
            insert_before(node, apart)
            insert_before(node, swap)
            result = swap.outputs[0]
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _join_of(user: ir.Node, width: int) -> ir.Value | None:
    """Return what ``Reshape(Transpose(x))`` makes of the heads, where it joins them."""
    if user.op_type != "Transpose" or _perm(user) != SWAP_HEADS:
        return None
    after = list(user.outputs[0].consumers())
    if len(after) != 1 or after[0].op_type != "Reshape":
        return None
    shape = known_shape(after[0].outputs[0])
    return (
        after[0].outputs[0] if shape is not None and len(shape) == 3 and shape[2] == width else None
    )


def _perm(node: ir.Node) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return () if attribute is None else tuple(attribute.as_ints())
