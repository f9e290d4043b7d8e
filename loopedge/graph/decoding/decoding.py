"""Give a graph a cache: it computes the next tokens of a text, and keeps keys and values of those before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.names import core_name, is_core
from loopedge.graph.decoding.attentions import HINT, SelfAttention, find_attentions
from loopedge.graph.decoding.chunk import Chunk, add_chunk
from loopedge.graph.decoding.grouped_query import Parts, group_queries, without_repeats
from loopedge.graph.decoding.last_valid import keep_last_valid
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.positions import PositionTables
from loopedge.graph.decoding.scanning import scan_loop
from loopedge.graph.decoding.scattered import ReadableKeys, raise_opset, scatter
from loopedge.graph.decoding.slots import Slot, name_slots, past_name, present_name
from loopedge.graph.decoding.text_inputs import fill_in, token_ids
from loopedge.graph.decoding.tried_lengths import lengths_to_try, longest_text
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["Decoding", "DecodingOptions", "give_cache"]

PARTS = ("key", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """What a cache is made of.

    Args:
        operators: ``grouped``: GroupQueryAttention of ONNX Runtime; ``standard``: operators of opset 24.
        last_loop: All iterations of a core that is written out share the slot of the last one.
    """

    operators: Literal["grouped", "standard"] = "grouped"
    last_loop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """A graph that decodes, the slots of its cache, and how many positions a text has at most, where that is known."""

    model: ir.Model
    slots: list[Slot]
    vocab_size: int | None
    context: int | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    """An attention and its slot.

    ``written`` is the slot's name in the outputs; ``cache``: keys and values as inputs of the graph; ``past``: those that the
    attention reads, in a body a slice; ``body`` holds the attention.
    """

    attention: SelfAttention
    body: ir.Graph
    slot: Slot
    written: str
    parts: Parts
    cache: Parts
    past: Parts


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
    lengths = LengthValues(model, ids)
    known = (read_metadata(model.metadata_props).max_length, longest_text(lengths))
    context = min((limit for limit in known if limit is not None), default=None)
    attentions = find_attentions(model, lengths, lengths_to_try(context))
    loops = _loops_with(model, attentions)
    names = name_slots(
        [attention.node for attention in attentions],
        {loop.body: name for loop, name in loops.items()},
    )
    tables = PositionTables(lengths, context)
    ours = {attention.node for attention in attentions}
    masked = [read for read in lengths.content_reads if not (read.node in ours and read.place == 3)]
    reads = tables.to_replace(masked)
    chunk, nodes = add_chunk(model, ids)
    tables.replace(reads, chunk, model)
    _insert_first(model.graph, [*nodes, *tables.nodes])
    logits = model.graph.outputs[0]
    del model.graph.outputs[1:]
    iterations = {loop: _iterations(loop, model) for loop in loops}
    rows = {loop.body: count for loop, count in iterations.items()}
    cached = [_cached(attention, names[attention.node], rows) for attention in attentions]
    if chosen.last_loop:
        cached = _share_last_loop(cached)
    presents = _attend(model, cached, chunk, chosen)
    _repeat(model, cached, presents, loops)
    keep_last_valid(model, logits, chunk)
    _clean(model)
    shape = known_shape(model.graph.outputs[0])
    vocabulary = shape[2] if shape is not None and isinstance(shape[2], int) else None
    slots = list(dict.fromkeys(item.slot for item in cached))
    return Decoding(model=model, slots=slots, vocab_size=vocabulary, context=context)


def _insert_first(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    if nodes and len(graph):
        graph.insert_before(graph[0], nodes)


def _loops_with(model: ir.Model, attentions: list[SelfAttention]) -> dict[LoopView, str]:
    """Return the Loops of the main graph that hold attention, by what they are called.

    Raises:
        InputError: An attention stands in another body.
    """
    found: dict[LoopView, str] = {}
    bodies: set[ir.Graph] = set()
    holders = {attention.node.graph for attention in attentions}
    for loop in loops_among(model.graph):
        if loop.body in holders:
            own = loop.node.name
            found[loop] = own if own and is_core(own) else core_name(len(found))
            bodies.add(loop.body)
    for attention in attentions:
        if attention.node.graph is not model.graph and attention.node.graph not in bodies:
            raise InputError(
                f"{attention.node.name} stands in a Loop inside another, or in a branch",
                hint="export with the inner loops written out: --inner unrolled",
            )
    return found


def _iterations(loop: LoopView, model: ir.Model) -> int:
    """Return how often a Loop runs unless a caller says else.

    Raises:
        InputError: The file does not say.
    """
    iterations = loop.most_iterations or read_metadata(model.metadata_props).loops
    if iterations is None:
        raise InputError(
            f"the file does not say how often {loop.name} runs: an input or the text does",
            hint=HINT,
        )
    return iterations


def _cached(attention: SelfAttention, name: str, rows: Mapping[ir.Graph, int]) -> _Cached:
    """Return an attention with values for its cache."""
    graph = attention.node.graph
    assert isinstance(graph, ir.Graph)
    parts = without_repeats(attention)
    shape = known_shape(parts[0])
    kv_heads = shape[1] if attention.split and shape is not None else attention.kv_heads
    assert isinstance(kv_heads, int)
    looped = graph in rows
    slot = Slot(
        name=name,
        loops=rows.get(graph),
        kv_heads=kv_heads,
        head_size=attention.head_size,
        window=attention.window,
    )
    one: list[int | str] = ["batch", kv_heads, "max_length", attention.head_size]
    key, value = (
        ir.Value(
            name=past_name(name, part),
            type=attention.key.type,
            shape=ir.Shape([*(["loops"] if looped else []), *one]),
        )
        for part in PARTS
    )
    past = key, value
    if looped:
        one_key, one_value = (
            ir.Value(name=f"{whole.name}.slice", type=whole.type, shape=ir.Shape(one))
            for whole in past
        )
        past = one_key, one_value
    return _Cached(
        attention=attention,
        body=graph,
        slot=slot,
        written=name,
        parts=parts,
        cache=(key, value),
        past=past,
    )


def _share_last_loop(cached: Sequence[_Cached]) -> list[_Cached]:
    """Let all iterations of an attention read one cache, and each write it: the last one's stays.

    Raises:
        InputError: No core is written out.
    """
    first: dict[str, _Cached] = {}
    found = []
    for item in cached:
        core, *rest = item.slot.name.split(".")
        if len(rest) < 2:
            found.append(item)
            continue
        name = f"{core}.{rest[1]}"
        if name not in first:
            shared = replace(item.slot, name=name)
            for value, part in zip(item.cache, PARTS, strict=True):
                value.name = past_name(name, part)
            first[name] = replace(item, slot=shared)
        one = first[name]
        found.append(replace(item, slot=one.slot, cache=one.cache, past=one.cache))
    if not first:
        raise InputError(
            "its core is not written out: one slot for all iterations needs the form unrolled",
            hint="loopedge to-generate MODEL --form unrolled --cache last-loop",
        )
    return found


def _attend(
    model: ir.Model, cached: Sequence[_Cached], chunk: Chunk, options: DecodingOptions
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


def _repeat(
    model: ir.Model,
    cached: Sequence[_Cached],
    presents: Sequence[Parts],
    loops: Mapping[LoopView, str],
) -> None:
    """Make Scans of Loops, and the cache inputs and outputs of the graph."""
    graph = model.graph
    for loop in loops:
        own = [place for place, item in enumerate(cached) if item.body is loop.body]
        pasts = [part for place in own for part in cached[place].past]
        wholes = [part for place in own for part in cached[place].cache]
        after = scan_loop(loop, pasts, [part for place in own for part in presents[place]], model)
        scan = after[0].producer()
        assert scan is not None
        first = len(scan.inputs) - len(wholes)
        for place, (whole, value) in enumerate(zip(wholes, after, strict=True)):
            scan.replace_input_with(first + place, whole)
            value.type, value.shape = whole.type, ir.Shape(list(whole.shape or ()))
        presents = [
            (after[2 * own.index(place)], after[2 * own.index(place) + 1])
            if place in own
            else parts
            for place, parts in enumerate(presents)
        ]
        _count_rows(model, wholes[0])
    for item, parts in zip(cached, presents, strict=True):
        for whole, value, part in zip(item.cache, parts, PARTS, strict=True):
            if whole not in graph.inputs:
                graph.inputs.append(whole)
            value.name = present_name(item.written, part)
            graph.outputs.append(value)


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
