"""Find the attentions of a graph that goes on from a cache, and what each reads and computes with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.decoding.attention.masks import Causal, Refused, classify
from loopedge.graph.decoding.length_values import LengthValues
from loopedge.graph.decoding.tried_lengths import (
    LONGEST_STORED,
    TRIED,
    mask_lengths,
    numbers_behind,
    stored_positions,
)
from loopedge.graph.shapes import known_shape

__all__ = ["SelfAttention", "find_attentions"]

MASK, PAST_KEY = 3, 4
FEW = 29
"""Positions of a window in the place of a long one."""
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
    model: ir.Model, lengths: LengthValues, context: int | None
) -> list[SelfAttention]:
    """Return the attentions of a graph, in its order.

    Args:
        model: In which attention is the operator ``Attention``. Not modified.
        lengths: Of the graph.
        context: Positions that the model takes at most; None: not known.

    Raises:
        InputError: One is not causal, or reads something else than the text itself; or there is none.
    """
    nodes = [n for n in model.graph.all_nodes() if n.op_type == "Attention" and not n.domain]
    if not nodes:
        raise InputError(
            "it has no attention that is recognised: there is nothing to keep in a cache", hint=HINT
        )
    return [_read(node, lengths, context) for node in nodes]


def _read(node: ir.Node, lengths: LengthValues, context: int | None) -> SelfAttention:
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
        window=_mask(node, lengths, context).window,
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


def _mask(node: ir.Node, lengths: LengthValues, context: int | None) -> Causal:
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
    if min(context or 0, stored_positions(lengths, mask)) > LONGEST_STORED:
        raise InputError(
            f"the mask of {node.name} is stored for {context} positions, at most {LONGEST_STORED} are looked at",
            hint="a mask that is computed of positions, or is_causal=True",
        )
    tried = mask_lengths(lengths, mask, context)
    answer = _classified(mask, lengths, tried, causal=causal)
    if not isinstance(answer, Causal):
        raise InputError(f"the mask of {node.name} is not causal: {answer.reason}", hint=HINT)
    later = _later_window(mask, lengths, tried, answer, causal=causal)
    if not isinstance(later, Causal):
        raise InputError(f"the mask of {node.name} is not causal: {later.reason}", hint=HINT)
    return later


def _classified(
    mask: ir.Value,
    lengths: LengthValues,
    tried: Sequence[int],
    *,
    causal: bool,
    instead: Mapping[ir.Value, npt.NDArray[Any]] | None = None,
) -> Causal | Refused:
    found = lengths.evaluate([mask], [(1, length) for length in tried], instead)
    masks = {length: array for length, (array,) in zip(tried, found, strict=True)}
    if causal:
        masks = {length: _without_later(array, length) for length, array in masks.items()}
    return classify(masks)


def _later_window(
    mask: ir.Value, lengths: LengthValues, tried: Sequence[int], known: Causal, *, causal: bool
) -> Causal | Refused:
    """Return what a mask lets a query read, also where a number says so that is longer than all lengths that are tried.

    A mask of so many rows and columns is large. So the number is made small, and the window is as much smaller.
    """
    groups = numbers_behind(lengths, mask, tried)
    few = [length for length in tried if length <= TRIED[-2]]
    plain = _classified(mask, lengths, few, causal=causal) if groups else known
    for numbers in groups:
        less = min(map(abs, numbers.values())) - FEW
        instead = {value: _nearer_zero(value, less) for value in numbers}
        try:
            found = _classified(mask, lengths, few, causal=causal, instead=instead)
        except Exception:  # whatever ONNX Runtime says: the number is a size, which is no window
            continue
        if found == plain:
            continue
        window = found.window if isinstance(found, Causal) else None
        if window is None or known.window not in {None, window + less}:
            return Refused(f"it is another one behind {less + FEW} positions")
        known = Causal(window + less)
    return known


def _nearer_zero(value: ir.Value, less: int) -> npt.NDArray[Any]:
    """Return what a constant holds, moved towards 0."""
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    array = tensor.numpy()
    return np.asarray(array - np.sign(array) * less, array.dtype)


def _without_later(mask: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return a mask that hides later positions too."""
    wide = np.broadcast_to(mask, (*mask.shape[:-2], length, length)).copy()
    later = ~np.tri(length, dtype=bool)
    wide[..., later] = False if wide.dtype == np.bool_ else -np.inf
    return wide
