"""Compute attention in groups of heads, so that its activations are small.

Queries, keys, values and the scores of all heads are alive at once where attention is one operator. In
groups they take a share of that. A sum per group is added, so this is for where memory is short.
"""

from typing import Any

import onnx_ir as ir

from loopedge.graph.split.branches import (
    Branch,
    Cut,
    same_graph_linear,
    split_branches,
    stored_matrix,
)
from loopedge.graph.split.hidden_chunks import EXPECTED_LENGTH, LEAST_WIDTH

__all__ = ["split_heads"]

MOST_GROUPS = 4


def split_heads(
    model: ir.Model, *, length: int | None = None, least_width: int = LEAST_WIDTH
) -> dict[str, int]:
    """Split attention over its heads, in place.

    The query, key and value projections are split by their outputs, the output projection by its inputs.
    Groups are as many as it takes, up to four, until the scores of one are no larger than the state.
    What stays whole: attention whose projections are not linears with weights of their own, rotated
    queries, caches, and masks that differ by head.

    Requires: float weights as for `split_hidden`; Attention splits and joins the heads itself
    (`merge_head_axes`).

    Ensures: every weight is stored once: its parts take its place.

    Args:
        model: A float graph.
        length: Positions that an inference is expected to have; default: 128.
        least_width: Channels that a group of heads has at least.

    Returns:
        The initializers that were split, by name, with the number of their parts.
    """
    found = [
        branch
        for node in model.graph.all_nodes()
        if node.op_type == "Attention" and not node.domain
        if (branch := _match(model, node, length or EXPECTED_LENGTH, least_width)) is not None
    ]
    return split_branches(model, found)


def _match(model: ir.Model, node: ir.Node, length: int, least_width: int) -> Branch | None:
    heads, groups = (
        0 if (found := node.attributes.get(name)) is None else found.as_int()
        for name in ("q_num_heads", "kv_num_heads")
    )
    readers = node.outputs[0].consumers()
    if not heads or not groups or len(node.outputs) > 1 or len(readers) != 1 or not _plain(node):
        return None
    (down,) = readers
    weight = stored_matrix(model, down)
    if weight is None or down.graph is not node.graph or down.inputs[0] is not node.outputs[0]:
        return None
    cuts: dict[ir.Value, Cut] = {weight: Cut(axis=0)}
    nodes = {node}
    for value in node.inputs[:3]:
        made = _projection(model, value, node, cuts)
        if made is None or nodes & made:
            return None
        nodes |= made
    width = 0 if weight.shape is None else int(weight.shape.numpy()[0])
    count = _count(heads, groups, width, length, least_width)
    if count < 2 or node.graph is None or len(cuts) < 4:
        return None
    attributes: dict[str, Any] = {"q_num_heads": heads // count, "kv_num_heads": groups // count}
    return Branch(
        down=down,
        nodes=tuple(item for item in node.graph if item in nodes),
        cuts=cuts,
        parts=count,
        attributes={node: attributes},
    )


def _count(heads: int, groups: int, width: int, length: int, least_width: int) -> int:
    count = 1
    while (
        heads * length > count * width
        and 2 * count <= MOST_GROUPS
        and heads % (2 * count) == groups % (2 * count) == 0
        and width // (2 * count) >= least_width
    ):
        count *= 2
    return count


def _plain(node: ir.Node) -> bool:
    """Tell attention without a cache, and with a mask that is the same for all heads, if any."""
    if any(value is not None for value in node.inputs[4:]):
        return False
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is None:
        return True
    rank = None if mask.shape is None else len(mask.shape)
    return rank == 2 or (rank == 4 and mask.shape is not None and mask.shape[1] == 1)


def _projection(
    model: ir.Model, value: ir.Value | None, attention: ir.Node, cuts: dict[ir.Value, Cut]
) -> set[ir.Node] | None:
    """Return the nodes that give queries, keys or values alone; note how their weights are split."""
    made: set[ir.Node] = set()
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Add" and not node.domain:
        if not _is_read_once(node) or node.graph is not attention.graph:
            return None
        made.add(node)
        biases = [item for item in node.inputs if item is not None and item.const_value is not None]
        others = [item for item in node.inputs if item is not None and item.const_value is None]
        if len(biases) != 1 or len(others) != 1 or biases[0] in cuts:
            return None
        bias = biases[0]
        stored = model.graph.initializers.get(bias.name or "") is bias
        if not stored or bias.shape is None or len(bias.shape) != 1:
            return None
        cuts[bias] = Cut(axis=0)
        node = others[0].producer()
    if node is None or not same_graph_linear(model, node, attention.graph):
        return None
    weight = stored_matrix(model, node)
    if weight is None or weight in cuts or not _is_read_once(node):
        return None
    cuts[weight] = Cut(axis=1)
    return {*made, node}


def _is_read_once(node: ir.Node) -> bool:
    (output,) = node.outputs
    return len(output.uses()) == 1 and not output.is_graph_output()
