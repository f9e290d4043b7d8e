"""Give a graph a cache: it computes the next tokens of a text, and keeps keys and values of those before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.decoding.attentions import HINT, find_attentions
from loopedge.graph.decoding.cached_attentions import (
    CachedAttention,
    share_last_loop,
    with_caches,
)
from loopedge.graph.decoding.chunk import Chunk, add_chunk
from loopedge.graph.decoding.fusing.products import fuse_products
from loopedge.graph.decoding.fusing.rotary import fuse_rotary
from loopedge.graph.decoding.grouped_query import Parts, group_queries
from loopedge.graph.decoding.last_valid import keep_last_valid
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.positions import PositionTables, lengths_to_try
from loopedge.graph.decoding.scanning import repeat
from loopedge.graph.decoding.scattered import ReadableKeys, raise_opset, scatter
from loopedge.graph.decoding.slots import PARTS, Slot, present_name
from loopedge.graph.decoding.softmax_attention import match_written_out
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["Decoding", "DecodingOptions", "give_cache"]

FILLED_IN = {"attention_mask": 1, "token_type_ids": 0}
"""Inputs beside the token ids, int64 or float (batch, sequence), and what they hold in a text without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """What a cache is made of.

    Args:
        operators: ``grouped``: GroupQueryAttention of ONNX Runtime; ``standard``: operators of opset 24.
        last_loop: All iterations of a core that is written out share the slot of the last one.
        fused: Linears that read the same become one, rotations one node (`loopedge.graph.decoding.fusing`).
    """

    operators: Literal["grouped", "standard"] = "grouped"
    last_loop: bool = False
    fused: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """A graph that decodes, and the slots of its cache."""

    model: ir.Model
    slots: list[Slot]
    vocab_size: int | None
    notes: list[str] = field(default_factory=list)


def give_cache(model: ir.Model, options: DecodingOptions | None = None) -> Decoding:
    """Rewrite a causal language model into one that decodes, in place.

    Requires: the Loop form, or iterations that are written out; the weights may be quantized.

    Ensures: the inputs are ``input_ids``, ``lengths`` and the cache; the outputs the logits of each row's last valid token, and
    the cache; a Loop with attention in it is a Scan. docs/artifact.md has the table.

    Args:
        model: Inputs (batch, sequence), the first output (batch, sequence, vocabulary).
        options: Of the cache; default: by GroupQueryAttention, each iteration its own.

    Raises:
        InputError: The graph computes a token by more than those before it, or by what is not recognised.
    """
    chosen = options or DecodingOptions()
    ids = _token_ids(model)
    _fill_in(model, ids)
    match_written_out(model)
    context = read_metadata(model.metadata_props).max_length
    lengths = LengthValues(model, ids)
    attentions = find_attentions(model, lengths, lengths_to_try(context))
    cached = with_caches(model, attentions)
    tables = PositionTables(lengths, context)
    ours = {attention.node for attention in attentions}
    masked = [read for read in lengths.content_reads if not (read.node in ours and read.place == 3)]
    reads = tables.to_replace(masked)
    chunk, nodes = add_chunk(model, ids)
    tables.replace(reads, chunk, model)
    _insert_first(model.graph, [*nodes, *tables.nodes])
    logits = model.graph.outputs[0]
    del model.graph.outputs[1:]
    if chosen.last_loop:
        cached = share_last_loop(cached)
    presents = repeat(model, cached, _attend(model, cached, chunk, chosen))
    _declare(model, cached, presents)
    keep_last_valid(model, logits, chunk)
    if chosen.fused:
        fuse_products(model)
        fuse_rotary(model, tables.replaced)
    _clean(model)
    shape = known_shape(model.graph.outputs[0])
    vocabulary = shape[2] if shape is not None and isinstance(shape[2], int) else None
    slots = list(dict.fromkeys(item.slot for item in cached))
    return Decoding(model=model, slots=slots, vocab_size=vocabulary)


def _token_ids(model: ir.Model) -> ir.Value:
    found = [
        value
        for value in model.graph.inputs
        if value.dtype in {ir.DataType.INT64, ir.DataType.INT32}
        and value.name not in FILLED_IN
        and not chooses_loops(value)
        and value.shape is not None
        and len(value.shape) == 2
    ]
    if len(found) != 1:
        inputs = ", ".join(str(value.name) for value in model.graph.inputs)
        raise InputError(
            f"token ids (batch, sequence) are needed, the inputs are {inputs}", hint=HINT
        )
    if any(isinstance(dim, int) for dim in found[0].shape or ()):
        raise InputError(
            f"input {found[0].name} has a fixed size, {found[0].shape}: a chunk of a text has another",
            hint="export with free batch and sequence axes",
        )
    return found[0]


def _fill_in(model: ir.Model, ids: ir.Value) -> None:
    """Let inputs besides the token ids hold what they hold in a text without padding."""
    nodes = []
    noise = read_metadata(model.metadata_props).random_inputs
    for value in [value for value in model.graph.inputs if value is not ids]:
        along = (known_shape(value) or ())[:2] == known_shape(ids)
        if chooses_loops(value) or (value.name in noise and along):
            continue  # noise of a position goes with its token
        held = FILLED_IN.get(value.name or "")
        if held is None or value.dtype is None or known_shape(value) != known_shape(ids):
            raise InputError(
                f"input {value.name} is neither token ids nor a mask of padding", hint=HINT
            )
        name = f"prelude/{value.name}"
        sizes = make_node("Shape", [ids], f"{name}.sizes")
        number = np.array(held, value.dtype.numpy())
        held_by = add_initializer(model.graph, f"{name}.held", number)
        wide = make_node("Expand", [held_by, sizes.outputs[0]], name)
        wide.outputs[0].type, wide.outputs[0].shape = value.type, value.shape
        ir.convenience.replace_all_uses_with(value, wide.outputs[0])
        model.graph.inputs.remove(value)
        nodes += [sizes, wide]
    _insert_first(model.graph, nodes)


def _insert_first(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    if nodes and len(graph):
        graph.insert_before(graph[0], nodes)


def _attend(
    model: ir.Model, cached: Sequence[CachedAttention], chunk: Chunk, options: DecodingOptions
) -> list[Parts]:
    """Let attentions read a cache and extend it; return keys and values after each."""
    if options.operators == "grouped":
        return [
            group_queries(item.attention, item.parts, item.past, chunk, model) for item in cached
        ]
    raise_opset(model)
    keys = ReadableKeys(model, chunk, cached[0].cache[0])
    found = [
        scatter(
            item.attention,
            item.parts,
            item.past,
            chunk,
            keys.mask(item.attention.window),
            model,
        )
        for item in cached
    ]
    _insert_first(model.graph, keys.nodes)
    return found


def _declare(model: ir.Model, cached: Sequence[CachedAttention], presents: Sequence[Parts]) -> None:
    """Make the cache inputs and outputs of the graph; its rows are the loop count, where an input was."""
    for item, parts in zip(cached, presents, strict=True):
        for whole, value, part in zip(item.cache, parts, PARTS, strict=True):
            if whole not in model.graph.inputs:
                model.graph.inputs.append(whole)
            value.name = present_name(item.written, part)
            model.graph.outputs.append(value)
    repeated = next((item for item in cached if item.loops), None)
    if repeated is not None:
        _count_rows(model, repeated.cache[0])


def _count_rows(model: ir.Model, past: ir.Value) -> None:
    """Let the rows of the cache be the loop count, where an input was."""
    for value in [value for value in model.graph.inputs if chooses_loops(value)]:
        if value.uses():
            rows = make_node("Shape", [past], f"loops/{value.name}", {"start": 0, "end": 1})
            axis = add_initializer(model.graph, "chunk/first", np.array([0], np.int64))
            count = make_node("Squeeze", [rows.outputs[0], axis], "loops/rows")
            rows.outputs[0].type = count.outputs[0].type = ir.TensorType(ir.DataType.INT64)
            count.outputs[0].shape = value.shape
            ir.convenience.replace_all_uses_with(value, count.outputs[0])
            _insert_first(model.graph, [rows, count])
        model.graph.inputs.remove(value)


def _clean(model: ir.Model) -> None:
    """Drop what nothing reads any more."""
    common.RemoveUnusedNodesPass()(model)
    for value in [value for value in model.graph.inputs if chooses_loops(value)]:
        if not value.uses():
            model.graph.inputs.remove(value)
    model.graph.sort()
