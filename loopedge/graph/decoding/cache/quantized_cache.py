"""Keep keys and values in integers: eight bits each, or four, with scales that are constants of the graph.

A key after its rotation, or a value, is ``scale * q``: q is -128 .. 127 in eight bits and -8 .. 7 in four, two to a byte, the
first in the low half, 8 added. Each channel of each key-value head has a scale of its own, and so has each iteration: what an
iteration writes is of another size than what the one before it wrote.

Source: ``com.microsoft.GroupQueryAttention`` of ONNX Runtime, inputs ``k_scale`` and ``v_scale``, from release 1.27 on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.decoding.cache.grouped_query import MICROSOFT
from loopedge.graph.decoding.cache.scanning import ITERATION_STATE
from loopedge.graph.decoding.cache.slots import PAST
from loopedge.graph.editing import add_initializer, insert_before, make_node

__all__ = ["LARGEST", "SCALE_PREFIX", "dequantized", "round_cache", "scale_name"]

Array = npt.NDArray[Any]

LARGEST = {8: 127, 4: 7}
"""By bits: the largest q."""
TYPES = {8: ir.DataType.INT8, 4: ir.DataType.UINT8}
SCALE_PREFIX = "range."
"""What marks a tensor that is not a weight: docs/artifact.md."""
PAST_INPUTS, SCALE_INPUTS = (3, 4), (12, 13)
"""Of GroupQueryAttention: keys and values before, and their scales."""


def scale_name(part: str) -> str:
    """Return the initializer that holds the scales of ``core.0.key``: float32 ([loops,] kv heads, 1, head size)."""
    return f"{SCALE_PREFIX}{PAST}.{part}.scale"


def dequantized(stored: Array, scale: Array, bits: int) -> Array:
    """Return the floats that integers of a cache stand for.

    Args:
        stored: int8 (rows..., batch, kv heads, tokens, head size), or uint8 with half as many along the last axis.
        scale: float32 (rows..., kv heads, head size).
        bits: 8 or 4.
    """
    whole = stored
    if bits == 4:
        halves = np.stack([stored & 15, stored >> 4], axis=-1).astype(np.int8) - 8
        whole = halves.reshape(*stored.shape[:-1], -1)
    steps = np.expand_dims(scale, (-2, -4))  # (rows..., 1, kv heads, 1, head size)
    floats: Array = whole.astype(np.float32) * steps
    return floats


def round_cache(model: ir.Model, scales: Mapping[str, Array], bits: int) -> None:
    """Let the cache of a generate graph hold integers, in place.

    Requires: the graph that `loopedge.graph.decoding.decoding.give_cache` made, of GroupQueryAttention.

    Ensures: ``past.*`` and ``present.*`` are int8, or uint8 with half as many bytes along the last axis.

    Args:
        model: Changed.
        scales: By ``slot.part``: float32 ([loops, inner loops,] kv heads, head size).
        bits: 8 or 4.
    """
    readers: dict[ir.Node, list[_Reader]] = {}
    for value in model.graph.inputs:
        if (value.name or "").startswith(f"{PAST}."):
            for reader in _readers(value, (), bits):
                readers.setdefault(reader.node, []).append(reader)
    for node, found in readers.items():
        inputs = [*node.inputs, *[None] * (max(SCALE_INPUTS) + 1 - len(node.inputs))]
        for reader in found:
            part = reader.past.removeprefix(f"{PAST}.")
            table = np.expand_dims(scales[part].astype(np.float32), -2)  # (..., kv heads, 1, size)
            held = add_initializer(model.graph, scale_name(part), table)
            inputs[SCALE_INPUTS[PAST_INPUTS.index(reader.place)]] = _of_iteration(
                node, held, part, reader.bodies
            )
        _put_rounding(node, inputs, bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """An attention that reads a part of the cache: at which input, in which bodies, the outer one first."""

    node: ir.Node
    past: str
    place: int
    bodies: tuple[ir.Graph, ...]


def _readers(value: ir.Value, bodies: tuple[ir.Graph, ...], bits: int) -> list[_Reader]:
    """Return the attentions that read a part of the cache, and retype it on its way to the outputs."""
    found = []
    name = value.name or ""
    _retype(value, bits)
    for user, place in list(value.uses()):
        if user.op_type == "GroupQueryAttention":
            found.append(_Reader(node=user, past=name, place=place, bodies=bodies))
            _retype(user.outputs[1 + PAST_INPUTS.index(place)], bits)
        elif user.op_type == "Scan":
            body = user.attributes["body"].as_graph()
            inside = _readers(body.inputs[place], (*bodies, body), bits)
            found += [replace(reader, past=name) for reader in inside]
            for node in [each for each in body if each.op_type == "If"]:
                for branch in ("then_branch", "else_branch"):
                    _retype_after(node.attributes[branch].as_graph(), node, bits)
            _retype_after(body, user, bits)
    return found


def _retype_after(body: ir.Graph, node: ir.Node, bits: int) -> None:
    """Retype what a node gives, where its body gives integers."""
    for made, output in zip(body.outputs, node.outputs, strict=True):
        if made.dtype == TYPES[bits]:
            _retype(output, bits)


def _retype(value: ir.Value, bits: int) -> None:
    """Let a part of the cache hold integers, and what hands it on; a value that was done already stays."""
    if value.dtype == TYPES[bits] or value.shape is None:
        return
    value.type = ir.TensorType(TYPES[bits])
    sizes = list(value.shape)
    if bits == 4 and isinstance(sizes[-1], int):
        sizes[-1] //= 2
    value.shape = ir.Shape(sizes)
    for user in value.consumers():
        if user.op_type == "Identity":
            _retype(user.outputs[0], bits)


def _put_rounding(node: ir.Node, inputs: Sequence[ir.Value | None], bits: int) -> None:
    """Put the attention that reads and writes integers in the place of one of floats."""
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
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _of_iteration(
    node: ir.Node, table: ir.Value, part: str, bodies: Sequence[ir.Graph]
) -> ir.Value:
    """Return the scales of the iterations that run, (kv heads, 1, head size)."""
    for depth, body in enumerate(bodies):
        number = body.inputs[0]  # the first state of a Scan is the number of the iteration
        name = f"{ITERATION_STATE}.{depth}/{part}.scale"
        row = make_node("Gather", [table, number], name, {"axis": 0})
        row.outputs[0].type = table.type
        row.outputs[0].shape = ir.Shape(list(table.shape or ())[1:])
        insert_before(node, row)
        table = row.outputs[0]
    return table
