"""Give a graph a cache: it computes the next tokens of a text, and keeps keys and values of those before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.decoding.attention.attentions import find_attentions
from loopedge.graph.decoding.attention.softmax_attention import match_written_out
from loopedge.graph.decoding.attention.written_out.inferring import infer_more
from loopedge.graph.decoding.cache.cached_attentions import (
    CachedAttention,
    share_last_loop,
    with_caches,
)
from loopedge.graph.decoding.cache.grouped_query import Parts, group_queries
from loopedge.graph.decoding.cache.scanning import repeat
from loopedge.graph.decoding.cache.scattered import ReadableKeys, raise_opset, scatter
from loopedge.graph.decoding.cache.slots import PARTS, Slot, present_name
from loopedge.graph.decoding.chunk import IDS_INPUT, LOGITS_OUTPUT, Chunk, add_chunk
from loopedge.graph.decoding.fusing.products import fuse_products
from loopedge.graph.decoding.fusing.rotary import fuse_rotary
from loopedge.graph.decoding.last_valid import keep_last_valid
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.positions import PositionTables
from loopedge.graph.decoding.text_inputs import fill_in, token_ids
from loopedge.graph.decoding.tried_lengths import longest_text
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["Decoding", "DecodingOptions", "give_cache"]


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
    """A graph that decodes, the slots of its cache, and how many positions a text has at most, where that is known."""

    model: ir.Model
    slots: list[Slot]
    vocab_size: int | None
    context: int | None
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
    ids = token_ids(model)
    _insert_first(model.graph, fill_in(model, ids))
    match_written_out(model)
    if any(value.shape is None for node in model.graph.all_nodes() for value in node.outputs):
        infer_more(model)
    lengths = LengthValues(model, ids)
    known = (read_metadata(model.metadata_props).max_length, longest_text(lengths))
    context = min((limit for limit in known if limit is not None), default=None)
    attentions = find_attentions(model, lengths, context)
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
    _name_ends(model, ids)
    _clean(model)
    shape = known_shape(model.graph.outputs[0])
    vocabulary = shape[2] if shape is not None and isinstance(shape[2], int) else None
    slots = list(dict.fromkeys(item.slot for item in cached))
    return Decoding(model=model, slots=slots, vocab_size=vocabulary, context=context)


def _name_ends(model: ir.Model, ids: ir.Value) -> None:
    """Call the token ids and the logits as every generate file does, and let the ids be int64."""
    if ids.dtype == ir.DataType.INT32:
        cast = make_node("Cast", [ids], "prelude/ids", {"to": int(ir.DataType.INT32)})
        ir.convenience.replace_all_uses_with(ids, cast.outputs[0])
        cast.replace_input_with(0, ids)
        cast.outputs[0].type, cast.outputs[0].shape = ids.type, ids.shape
        ids.type = ir.TensorType(ir.DataType.INT64)
        _insert_first(model.graph, [cast])
    logits = model.graph.outputs[0]
    for value, name in ((ids, IDS_INPUT), (logits, LOGITS_OUTPUT)):
        for other in _values(model):
            if other.name == name and other is not value:
                other.name = f"model.{name}"
        value.name = name


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield all values that have a name, inputs and weights too."""
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.inputs
        yield from list(graph.initializers.values())
        for node in graph:
            yield from node.outputs


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
