"""The attentions of a graph with the values of their cache: what each reads of it, and what the graph takes for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import core_name, is_core
from loopedge.graph.decoding.attention.attentions import HINT, SelfAttention
from loopedge.graph.decoding.cache.grouped_query import Parts, without_repeats
from loopedge.graph.decoding.cache.slots import PARTS, Slot, name_slots, past_name
from loopedge.graph.decoding.length_values import bodies_of
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["CachedAttention", "share_last_loop", "with_caches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAttention:
    """An attention, its slot, and keys and values of the cache at each level.

    Args:
        attention: Stands in the graph.
        loops: The Loops around it, the innermost first.
        slot: Its place in the cache.
        written: The slot's name in the outputs.
        parts: Keys and values of the chunk, heads not repeated.
        levels: Of the cache: what the attention reads, in a body a slice of the next; the last are inputs of the graph.
    """

    attention: SelfAttention
    loops: tuple[LoopView, ...]
    slot: Slot
    written: str
    parts: Parts
    levels: tuple[Parts, ...]

    @property
    def past(self) -> Parts:
        """What the attention reads, (batch, kv heads, length, head size)."""
        return self.levels[0]

    @property
    def cache(self) -> Parts:
        """The inputs of the graph."""
        return self.levels[-1]


def with_caches(model: ir.Model, attentions: Sequence[SelfAttention]) -> list[CachedAttention]:
    """Return the attentions of a graph with new values for their cache.

    Raises:
        InputError: One stands in another body than that of a Loop, or in one whose iterations are not known.
    """
    holders = {body: node for node in model.graph.all_nodes() for body in bodies_of(node)}
    around = [_loops_around(attention.node, holders) for attention in attentions]
    cores: dict[LoopView, str] = {}
    for loops in around:
        if loops and loops[-1] not in cores:
            own = loops[-1].node.name
            cores[loops[-1]] = own if own and is_core(own) else core_name(len(cores))
    places = [cores[loops[-1]] if loops else None for loops in around]
    names = name_slots([attention.node for attention in attentions], places)
    known = read_metadata(model.metadata_props).loops
    return [
        _cached(attention, loops, name, known)
        for attention, loops, name in zip(attentions, around, names, strict=True)
    ]


def _loops_around(node: ir.Node, holders: Mapping[ir.Graph, ir.Node]) -> tuple[LoopView, ...]:
    """Return the Loops whose bodies hold a node, the innermost first."""
    found: list[LoopView] = []
    graph = node.graph
    while isinstance(graph, ir.Graph) and (holder := holders.get(graph)) is not None:
        if holder.op_type != "Loop" or holder.domain:
            raise InputError(
                f"{node.name} stands in {holder.name} ({holder.op_type}), and in no Loop"
            )
        found.append(LoopView(holder))
        graph = holder.graph
    return tuple(found)


def _cached(
    attention: SelfAttention, loops: tuple[LoopView, ...], name: str, known: int | None
) -> CachedAttention:
    parts = without_repeats(attention)
    shape = known_shape(parts[0])
    kv_heads = shape[1] if attention.split and shape is not None else attention.kv_heads
    assert isinstance(kv_heads, int)
    counts = [loop.most_iterations for loop in loops[:-1]]
    inner = tuple(count for count in reversed(counts) if count is not None)
    if len(inner) != len(counts):
        raise InputError(
            f"{attention.node.name} stands in a Loop inside another that runs any number of times",
            hint="export with the inner loops written out: --inner unrolled",
        )
    iterations = (loops[-1].most_iterations or known) if loops else None
    if loops and iterations is None:
        raise InputError(
            f"the file does not say how often {loops[-1].name} runs: an input or the text does",
            hint=HINT,
        )
    slot = Slot(
        name=name,
        loops=iterations,
        inner=inner,
        kv_heads=kv_heads,
        head_size=attention.head_size,
        window=attention.window,
        softcap=attention.node.attributes.get_float("softcap", 0.0) or None,
    )
    one: list[int | str] = ["batch", kv_heads, "max_length", attention.head_size]
    levels = []
    for depth in range(len(loops) + 1):
        rows: list[int | str] = [*(["loops"] if depth == len(loops) > 0 else [])]
        rows += inner[len(inner) - depth + (1 if rows else 0) :] if depth else ()
        key, value = (
            ir.Value(
                name=past_name(name, part) + (f".slice.{depth}" if depth < len(loops) else ""),
                type=attention.key.type,
                shape=ir.Shape([*rows, *one]),
            )
            for part in PARTS
        )
        levels.append((key, value))
    return CachedAttention(
        attention=attention,
        loops=loops,
        slot=slot,
        written=name,
        parts=parts,
        levels=tuple(levels),
    )


def share_last_loop(cached: Sequence[CachedAttention]) -> list[CachedAttention]:
    """Let all iterations of an attention read one cache, and each write it: the last one's stays.

    Raises:
        InputError: No core is written out.
    """
    first: dict[str, CachedAttention] = {}
    found = []
    for item in cached:
        core, *rest = item.slot.name.split(".")
        if len(rest) < 2:
            found.append(item)
            continue
        name = f"{core}.{rest[1]}"
        if name not in first:
            for value, part in zip(item.cache, PARTS, strict=True):
                value.name = past_name(name, part)
            first[name] = replace(item, slot=replace(item.slot, name=name))
        one = first[name]
        found.append(replace(item, slot=one.slot, levels=one.levels))
    if not first:
        raise InputError(
            "its core is not written out: one slot for all iterations needs the form unrolled",
            hint="loopedge to-generate MODEL --form unrolled --cache last-loop",
        )
    return found
