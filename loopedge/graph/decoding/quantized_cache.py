"""Keep keys and values in integers: eight bits each, or four, with scales that are constants of the graph.

A key after its rotation, or a value, is ``scale * q``: q is -128 .. 127 in eight bits and -8 .. 7 in four, two to a byte, the
first in the low half, 8 added. Each channel of each key-value head has a scale of its own, and so has each iteration: what an
iteration writes is of another size than what the one before it wrote.

Source: ``com.microsoft.GroupQueryAttention`` of ONNX Runtime, inputs ``k_scale`` and ``v_scale``, from release 1.27 on.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.decoding.grouped_query import MICROSOFT
from loopedge.graph.decoding.scanning import ITERATION_STATE
from loopedge.graph.decoding.slots import PAST, PRESENT
from loopedge.graph.editing import add_initializer, insert_before, make_node

__all__ = ["LARGEST", "SCALE_PREFIX", "round_cache", "scale_name"]

Array = npt.NDArray[Any]

LARGEST = {8: 127, 4: 7}
"""By bits: the largest q."""
TYPES = {8: ir.DataType.INT8, 4: ir.DataType.UINT8}
SCALE_PREFIX = "range."
"""What marks a tensor that is not a weight: docs/artifact.md."""
PAST_INPUTS, SCALE_INPUTS = (3, 4), (12, 13)
"""Of GroupQueryAttention: keys and values before, and their scales."""
SLICE = ".slice"
"""Ends what a body calls its part of the cache."""


def scale_name(part: str) -> str:
    """Return the initializer that holds the scales of ``core.0.key``: float32 ([loops,] kv heads, 1, head size)."""
    return f"{SCALE_PREFIX}{PAST}.{part}.scale"


def round_cache(model: ir.Model, scales: Mapping[str, Array], bits: int) -> None:
    """Let the cache of a generate graph hold integers, in place.

    Requires: the graph that `loopedge.graph.decoding.decoding.give_cache` made.

    Ensures: ``past.*`` and ``present.*`` are int8, or uint8 with half as many bytes along the last axis.

    Args:
        model: Changed.
        scales: By ``slot.part``: float32 (loops, kv heads, head size), of slots outside of a Scan (kv heads, head size).
        bits: 8 or 4.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type == "GroupQueryAttention" and node.domain == MICROSOFT:
            _round(node, model, scales, bits)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if (value.name or "").startswith((f"{PAST}.", f"{PRESENT}.")):
            _retype(value, bits)


def _round(node: ir.Node, model: ir.Model, scales: Mapping[str, Array], bits: int) -> None:
    """Let one attention read and write integers."""
    inputs = [*node.inputs, *[None] * (max(SCALE_INPUTS) + 1 - len(node.inputs))]
    inside = node.graph is not model.graph
    for past_place, scale_place in zip(PAST_INPUTS, SCALE_INPUTS, strict=True):
        past = inputs[past_place]
        assert past is not None
        assert past.name is not None
        part = past.name.removesuffix(SLICE).removeprefix(f"{PAST}.")
        table = np.expand_dims(scales[part].astype(np.float32), -2)  # (..., kv heads, 1, head size)
        held = add_initializer(model.graph, scale_name(part), table)
        inputs[scale_place] = _of_iteration(node, held, part) if inside else held
        if inside:
            _retype(past, bits)
    attributes: dict[str, int | str] = {
        "kv_cache_bit_width": bits,
        "k_quant_type": "PER_CHANNEL",
        "v_quant_type": "PER_CHANNEL",
    }
    rounding = ir.Node(
        MICROSOFT,
        node.op_type,
        inputs,
        [
            *node.attributes.values(),
            *(ir.convenience.convert_attribute(name, held) for name, held in attributes.items()),
        ],
        num_outputs=len(node.outputs),
        name=node.name,
    )
    insert_before(node, rounding)
    for old, new in zip(node.outputs, rounding.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    for present in rounding.outputs[1:3]:
        _retype(present, bits)
        for user in present.consumers():
            if user.op_type == "Identity":  # an output of the body that is given once more
                _retype(user.outputs[0], bits)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _of_iteration(node: ir.Node, table: ir.Value, part: str) -> ir.Value:
    """Return the scales of the iteration, (kv heads, 1, head size)."""
    body = node.graph
    assert isinstance(body, ir.Graph)
    number = body.inputs[0]  # the first state of the Scan: ITERATION_STATE
    row = make_node("Gather", [table, number], f"{ITERATION_STATE}/{part}.scale", {"axis": 0})
    row.outputs[0].type = table.type
    row.outputs[0].shape = ir.Shape(list(table.shape or ())[1:])
    insert_before(node, row)
    return row.outputs[0]


def _retype(value: ir.Value, bits: int) -> None:
    """Let a part of the cache hold integers; a value that was done already stays."""
    if value.dtype == TYPES[bits] or value.shape is None:
        return
    value.type = ir.TensorType(TYPES[bits])
    sizes = list(value.shape)
    if bits == 4 and isinstance(sizes[-1], int):
        sizes[-1] //= 2
    value.shape = ir.Shape(sizes)
