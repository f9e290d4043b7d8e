"""Find the attentions of a graph that goes on from a cache, and what each reads and computes with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.masks import Causal, Refused, classify, lengths_for
from loopedge.graph.metadata import read_metadata
from loopedge.graph.shapes import known_shape

__all__ = ["SelfAttention", "find_attentions"]

MASK, PAST_KEY = 3, 4
HINT = "loopedge run MODEL --text ... computes the whole text for each token"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfAttention:
    """A causal attention of a text to itself.

    ``query``, ``key`` and ``value`` are (batch, sequence, heads x head size), or with ``split`` (batch, heads, sequence, head
    size); ``kv_heads`` those of the cache.
    """

    node: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    split: bool
    heads: int
    kv_heads: int
    head_size: int
    window: int | None


def find_attentions(
    model: ir.Model, lengths: LengthValues, tried: Sequence[int]
) -> list[SelfAttention]:
    """Return the attentions of a graph, in its order.

    Args:
        model: In which attention is the operator ``Attention``. Not modified.
        lengths: Of the graph.
        tried: Lengths at which masks are looked at.

    Raises:
        InputError: One is not causal, or reads something else than the text itself; or there is none.
    """
    nodes = [n for n in model.graph.all_nodes() if n.op_type == "Attention" and not n.domain]
    if not nodes:
        raise InputError(
            "it has no attention that is recognised: there is nothing to keep in a cache", hint=HINT
        )
    return [_read(node, lengths, tried) for node in nodes]


def _read(node: ir.Node, lengths: LengthValues, tried: Sequence[int]) -> SelfAttention:
    query, key, value = node.inputs[:3]
    if query is None or key is None or value is None:
        raise InputError(f"{node.name} has no queries, keys or values")
    if any(item is not None for item in node.inputs[PAST_KEY:]) or len(node.outputs) > 1:
        raise InputError(f"{node.name} keeps a cache of its own, or gives its scores", hint=HINT)
    shapes = [known_shape(item) for item in (query, key, value)]
    ranks = {None if shape is None else len(shape) for shape in shapes}
    if ranks not in ({3}, {4}):
        raise InputError(f"the shapes that {node.name} reads are not known: {shapes}", hint=HINT)
    split = ranks == {4}
    if split:
        heads, kv_heads = shapes[0][1], shapes[1][1]  # type: ignore[index]
        sizes = [shape[3] for shape in shapes]  # type: ignore[index]
    else:
        heads = node.attributes.get_int("q_num_heads", 0)
        kv_heads = node.attributes.get_int("kv_num_heads", 0)
        sizes = [_part(shapes[0], heads), *(_part(shape, kv_heads) for shape in shapes[1:])]
    if not all(isinstance(size, int) for size in (heads, kv_heads, *sizes)):
        raise InputError(f"the heads of {node.name} are not known: {shapes}", hint=HINT)
    if len(set(sizes)) != 1:
        raise InputError(
            f"{node.name} has heads of different sizes, {sizes}: the cache takes one", hint=HINT
        )
    _check_reads_itself(node, lengths, shapes[0], shapes[1], split=split)
    return SelfAttention(
        node=node,
        query=query,
        key=key,
        value=value,
        split=split,
        heads=int(heads),  # type: ignore[arg-type]
        kv_heads=int(kv_heads),  # type: ignore[arg-type]
        head_size=int(sizes[0]),  # type: ignore[arg-type]
        window=_mask(node, lengths, tried).window,
    )


def _part(shape: tuple[int | str | None, ...] | None, heads: int) -> int | None:
    width = None if shape is None else shape[2]
    return width // heads if isinstance(width, int) and heads and width % heads == 0 else None


def _check_reads_itself(
    node: ir.Node,
    lengths: LengthValues,
    queries: tuple[int | str | None, ...] | None,
    keys: tuple[int | str | None, ...] | None,
    *,
    split: bool,
) -> None:
    axis = 2 if split else 1
    if queries is None or keys is None:
        return
    if node.inputs[1] in lengths or (isinstance(keys[axis], int) and queries[axis] != keys[axis]):
        raise InputError(f"{node.name} reads keys that are not those of the text", hint=HINT)


def _mask(node: ir.Node, lengths: LengthValues, tried: Sequence[int]) -> Causal:
    mask = node.inputs[MASK] if len(node.inputs) > MASK else None
    causal = bool(node.attributes.get_int("is_causal", 0))
    if mask is None:
        if causal:
            return Causal()
        raise InputError(
            f"{node.name} reads the whole text in both directions: no token can be added to it",
            hint=HINT,
        )
    if mask not in lengths:
        raise InputError(
            f"{node.name} has a mask, {mask.name}, that depends on more than the number of positions",
            hint=HINT,
        )
    context = read_metadata(lengths.model.metadata_props).max_length
    looked_at = lengths_for(lengths.numbers_of(mask), tried, context)
    if isinstance(looked_at, Refused):
        raise InputError(f"the mask of {node.name}: {looked_at.reason}", hint=HINT)
    found = lengths.evaluate([mask], [(1, length) for length in looked_at])
    masks = {length: array for length, (array,) in zip(looked_at, found, strict=True)}
    if causal:
        masks = {length: _without_later(array, length) for length, array in masks.items()}
    answer = classify(masks)
    if not isinstance(answer, Causal):
        raise InputError(f"the mask of {node.name} is not causal: {answer.reason}", hint=HINT)
    return answer


def _without_later(mask: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return a mask that hides later positions too."""
    wide = np.broadcast_to(mask, (*mask.shape[:-2], length, length)).copy()
    later = ~np.tri(length, dtype=bool)
    wide[..., later] = False if wide.dtype == np.bool_ else -np.inf
    return wide
