"""Attention written out as products and a softmax becomes the operator ``Attention``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from loopedge.graph.decoding.attention.fused_attention import read_fused, replace_fused
from loopedge.graph.decoding.attention.written_out.inferring import infer_more
from loopedge.graph.decoding.attention.written_out.numbers import Size, number_of, rank_of, size_of
from loopedge.graph.decoding.attention.written_out.operands import (
    STRAIGHT,
    Operand,
    read_operand,
    same_sizes,
    turned,
)
from loopedge.graph.decoding.attention.written_out.opset import (
    ATTENTION_OPSET,
    can_be_raised,
    raise_opset,
)
from loopedge.graph.decoding.attention.written_out.scores import (
    Mask,
    Scores,
    einsum_terms,
    read_scores,
)
from loopedge.graph.editing import add_initializer, insert_before, make_node
from loopedge.graph.passes.attention import expand_masks
from loopedge.graph.shapes import known_shape

__all__ = ["match_written_out"]

PASSED = {"Cast", "Identity", "Dropout"}
LONGEST_WAY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An attention that is written out: what it reads, and the node whose output it gives.

    ``order`` are the axes of that output, of (batch, heads, sequence, head size); ``folded``: batch and heads are one axis.
    """

    scores: Scores
    value: Operand
    node: ir.Node
    order: tuple[int, ...] = STRAIGHT
    folded: bool = False


def match_written_out(model: ir.Model) -> int:
    """Replace attention that is written out by ``Attention`` nodes, in place, also in bodies.

    Found are products of queries and keys with a softmax over the keys and a product with the values, whatever scales, caps
    and masks stand between; and what ONNX Runtime's optimizers make of them.

    Requires: nothing. Where the graph's opset is older than the operator, it is raised; where that cannot be done nothing
    changes.

    Ensures: a node reads (batch, heads, sequence, head size) three times, and a mask; the graph computes what it did, but
    for rows that may read no position, which ``Attention`` gives as zeros.

    Returns:
        How many attentions were replaced.
    """
    if model.opset_imports.get("", 1) < ATTENTION_OPSET and not can_be_raised(model):
        return 0
    softmaxes = [
        node for node in model.graph.all_nodes() if node.op_type == "Softmax" and not node.domain
    ]
    found = [each for node in softmaxes if (each := _find(node)) is not None]
    if len(found) < len(softmaxes) or any(map(_unknown, found)):
        infer_more(model)
        found = [each for node in softmaxes if (each := _find(node)) is not None]
    for each in found:
        _replace(each, model)
    fused = read_fused(model)
    for node in fused:
        replace_fused(node, model)
    if found or fused:
        raise_opset(model)
        expand_masks(model)
    return len(found) + len(fused)


def _unknown(found: _Found) -> bool:
    """Tell whether the graph says nothing of the shape of what an attention reads."""
    parts = (found.scores.query, found.scores.key, found.value)
    return any(known_shape(part.value) is None for part in parts)


def _find(softmax: ir.Node) -> _Found | None:
    rank = rank_of(softmax.inputs[0])
    axis = softmax.attributes.get_int("axis", -1)
    if rank not in {3, 4} or axis not in {-1, rank - 1}:
        return None
    product, shares = _product_with_values(softmax)
    if product is None or shares is None:
        return None
    scores = read_scores(softmax.inputs[0])
    if scores is None or product.graph is None:
        return None
    if product.op_type == "Einsum":
        return _einsum(product, shares, scores)
    factors = list(product.inputs[:2])
    if factors[0] is not shares or shares is factors[1]:
        return None
    value = read_operand(factors[1], scaled=False)
    if value is None:
        return None
    return _fitting(_Found(scores=scores, value=value, node=product, folded=rank_of(shares) == 3))


def _product_with_values(softmax: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Follow what the softmax gives to the product with the values; nothing else may read it on the way."""
    current = softmax.outputs[0]
    for _ in range(LONGEST_WAY):
        if current.is_graph_output():
            break
        users = list(current.consumers())
        cleaned = _without_nan(current, users)
        if cleaned is not None:
            current = cleaned
            continue
        if len(users) != 1 or (users[0].domain and users[0].op_type != "FusedMatMul"):
            break
        (user,) = users
        if user.op_type in {"MatMul", "Einsum"}:
            return user, current
        reshaped = user.op_type == "Reshape" and _keeps_rows(user)
        trained = user.op_type == "Dropout" and not _drops_nothing(user)
        if trained or not (user.op_type in PASSED or reshaped):
            break
        current = user.outputs[0]
    return None, None


def _without_nan(value: ir.Value, users: list[ir.Node]) -> ir.Value | None:
    """Return what ``Where(IsNaN(x), 0, x)`` gives, where it alone reads a value."""
    kinds = {user.op_type: user for user in users}
    if len(users) != 2 or set(kinds) != {"IsNaN", "Where"}:
        return None
    asked, chosen = kinds["IsNaN"].outputs[0], kinds["Where"]
    fits = chosen.inputs[0] is asked and chosen.inputs[2] is value
    alone = len(asked.uses()) == 1 and not asked.is_graph_output()
    return chosen.outputs[0] if fits and alone and number_of(chosen.inputs[1]) == 0 else None


def _keeps_rows(node: ir.Node) -> bool:
    source, after = node.inputs[0], node.outputs[0]
    if source is None or {rank_of(source), rank_of(after)} != {3, 4}:
        return False
    return same_sizes(
        [size_of(source, axis) for axis in (-2, -1)], [size_of(after, axis) for axis in (-2, -1)]
    )


def _drops_nothing(node: ir.Node) -> bool:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    unread = all(not (out.uses() or out.is_graph_output()) for out in node.outputs[1:])
    return unread and (training is None or number_of(training) == 0)


def _einsum(node: ir.Node, shares: ir.Value, scores: Scores) -> _Found | None:
    """Read an equation as ``bhqk,bhkd->bqhd``, with the axes of values and result in any order."""
    terms = einsum_terms(node)
    if terms is None:
        return None
    (one, two), result = terms
    given = node.inputs[1]
    if node.inputs[0] is not shares:
        one, two, given = two, one, node.inputs[0]
    batch, heads, rows, columns = tuple(one)
    (size,) = set(two) - set(one) or {""}
    if set(two) != {batch, heads, columns, size} or set(result) != {batch, heads, rows, size}:
        return None
    value = read_operand(given, scaled=False)
    if value is None:
        return None
    perm = tuple(value.perm[two.index(letter)] for letter in (batch, heads, columns, size))
    straight = (batch, heads, rows, size)
    return _fitting(
        _Found(
            scores=scores,
            value=Operand(value=value.value, perm=perm),
            node=node,
            order=tuple(straight.index(letter) for letter in result),
        )
    )


def _fitting(found: _Found) -> _Found | None:
    """Return what was found, where the operator computes it: with one type, and masks that it takes."""
    types = {part.value.dtype for part in (found.scores.query, found.scores.key, found.value)}
    if len(types - {None}) > 1:
        return None
    folded = rank_of(found.node.inputs[0]) == 3
    for mask in found.scores.masks:
        shape = rank_of(_unspread(mask.value))
        # Beside folded batch and heads, a mask of three axes may differ by both.
        if shape is None or shape > 4 or (folded and shape == 3 and not _of_one(mask.value)):
            return None
    return found


def _unspread(value: ir.Value) -> ir.Value:
    """Return what an Expand repeats, without it: the operator repeats it too."""
    node = value.producer()
    if node is None or node.op_type != "Expand" or node.domain or node.inputs[0] is None:
        return value
    source, rank = node.inputs[0], rank_of(node.inputs[0])
    if rank is None or rank < 2:
        return value
    kept = [size_of(source, axis) for axis in (-2, -1)]
    return source if same_sizes(kept, [size_of(value, axis) for axis in (-2, -1)]) else value


def _of_one(value: ir.Value) -> bool:
    source = _unspread(value)
    return rank_of(source) == 2 or size_of(source, 0) == 1


def _replace(found: _Found, model: ir.Model) -> None:
    old = found.node
    name = old.name or "attention"
    query, key = found.scores.query, found.scores.key
    inputs: list[ir.Value] = []
    for operand, part in ((query, "query"), (key, "key"), (found.value, "value")):
        value, nodes = turned(operand, operand.perm, f"{name}.{part}")
        for node in nodes:
            insert_before(old, node)
        if value.shape is None:  # what the walk found out is asked for again
            value.shape = _noted([size_of(value, axis) for axis in range(4)])
        inputs.append(value)
    mask = _mask(found, model, name)
    attributes: dict[str, Any] = {"scale": found.scores.scale}
    if found.scores.softcap is not None:
        attributes["softcap"] = found.scores.softcap
    attention = make_node(
        "Attention", [*inputs, *([] if mask is None else [mask])], f"{name}.attention", attributes
    )
    insert_before(old, attention)
    result = attention.outputs[0]
    sizes = [*(size_of(inputs[0], axis) for axis in (0, 1, 2)), size_of(inputs[2], 3)]
    result.shape = _noted(sizes)
    output = old.outputs[0]
    result.type = inputs[0].type or output.type
    result = _as_before(found, result, output, model, name)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    _remove_unused(old)


def _noted(sizes: Sequence[Size]) -> ir.Shape:
    return ir.Shape([size if isinstance(size, int | str) else None for size in sizes])


def _as_before(
    found: _Found, result: ir.Value, output: ir.Value, model: ir.Model, name: str
) -> ir.Value:
    """Return what the attention gives with the axes that the old node's output had."""
    if found.order != STRAIGHT:
        node = make_node("Transpose", [result], f"{name}.turned", {"perm": found.order})
    elif found.folded:
        for user in list(output.consumers()):
            if user.op_type == "Reshape" and rank_of(user.outputs[0]) == 4 and _keeps_rows(user):
                ir.convenience.replace_all_uses_with(
                    user.outputs[0], result, replace_graph_outputs=True
                )
        if not output.uses() and not output.is_graph_output():
            return result
        shape = make_node("Shape", [result], f"{name}.sizes", {"start": 2})
        shape.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        first = add_initializer(model.graph, "loopedge.as_many", np.array([-1], np.int64))
        sizes = make_node("Concat", [first, shape.outputs[0]], f"{name}.folded_sizes", {"axis": 0})
        insert_before(found.node, shape)
        insert_before(found.node, sizes)
        node = make_node("Reshape", [result, sizes.outputs[0]], f"{name}.folded")
    else:
        return result
    insert_before(found.node, node)
    node.outputs[0].type, node.outputs[0].shape = output.type, output.shape
    return node.outputs[0]


def _mask(found: _Found, model: ir.Model, name: str) -> ir.Value | None:
    """Return one mask for all that were found; insert what makes it."""
    masks = found.scores.masks
    boolean = all(mask.boolean for mask in masks)
    parts = [
        _as_mask(mask, found, model, f"{name}.mask.{i}", boolean) for i, mask in enumerate(masks)
    ]
    if not parts:
        return None
    whole = parts[0]
    for place, part in enumerate(parts[1:]):
        both = make_node("And" if boolean else "Add", [whole, part], f"{name}.mask.both.{place}")
        insert_before(found.node, both)
        both.outputs[0].type = whole.type
        whole = both.outputs[0]
    return whole


def _as_mask(mask: Mask, found: _Found, model: ir.Model, name: str, boolean: bool) -> ir.Value:
    value = _unspread(mask.value)
    dtype = found.scores.query.value.dtype or ir.DataType.FLOAT
    nodes: list[ir.Node] = []
    if mask.boolean and mask.hides:
        nodes.append(make_node("Not", [value], f"{name}.read"))
    if mask.boolean and not boolean:
        read = nodes[-1].outputs[0] if nodes else value
        ends = [
            add_initializer(
                model.graph, f"loopedge.{key}.{dtype.name}", np.array(held, dtype.numpy())
            )
            for key, held in (("read", 0.0), ("hidden", -np.inf))
        ]
        nodes.append(make_node("Where", [read, *ends], f"{name}.added"))
    if not mask.boolean and value.dtype not in {None, dtype}:
        nodes.append(make_node("Cast", [value], f"{name}.cast", {"to": dtype}))
    for node in nodes:
        insert_before(found.node, node)
        output = node.outputs[0]
        kind = ir.DataType.BOOL if node.op_type == "Not" else dtype
        output.type = ir.TensorType(kind)
        output.shape = None if value.shape is None else ir.Shape(list(value.shape))
        value = output
    return value


def _remove_unused(node: ir.Node) -> None:
    """Remove a node that nothing reads, and what fed it alone."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each.graph is None or any(out.uses() or out.is_graph_output() for out in each.outputs):
            continue
        feeding = [value.producer() for value in each.inputs if value is not None]
        each.graph.remove(each, safe=True)
        waiting += [maker for maker in feeding if maker is not None and maker.graph is not None]
