"""Let Attention split and join the heads itself.

PyTorch hands attention (batch, heads, sequence, head_size); the graph reshapes and transposes queries,
keys and values before it and the result after it. The Attention operator of opset 23 also takes
(batch, sequence, heads * head_size) and the numbers of heads: eight nodes less per layer and a
hundredth of the time (benchmarks/export/attention.py).
"""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, insert_before, make_node, replace_node

__all__ = ["expand_masks", "merge_head_axes"]

SWAP_HEADS = (0, 2, 1, 3)


def merge_head_axes(model: ir.Model) -> bool:
    """Drop the Reshape and Transpose nodes around Attention, in place.

    Requires: types and shapes of the values around Attention are known; those without are left alone.

    Ensures: Attention splits and joins the heads itself, unless its queries or keys are rotated between
    Transpose and product, or something else reads the transposed result.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Attention" or node.domain or len(node.outputs) != 1:
            continue
        sources = [_split(value) for value in node.inputs[:3]]
        joined = _join(node.outputs[0])
        if joined is None or any(source is None for source in sources):
            continue
        values, heads = zip(*(source for source in sources if source is not None), strict=True)
        if heads[1] != heads[2]:
            continue
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        attributes |= {"q_num_heads": heads[0], "kv_num_heads": heads[1]}
        name = node.name or "attention"
        merged = make_node("Attention", [*values, *node.inputs[3:]], name, attributes)
        replace_node(joined, [merged])
        _remove_unused(joined.inputs[0], node)
        changed = True
    return changed


def expand_masks(model: ir.Model) -> bool:
    """Write out a mask that has one row for all queries, in place: ONNX Runtime does not broadcast it.

    Requires: the shapes of queries and masks are known; those without are left alone.

    Ensures: a mask has as many rows as there are queries.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Attention" or node.domain or len(node.inputs) < 4:
            continue
        queries, mask = node.inputs[0], node.inputs[3]
        if queries is None or mask is None or queries.shape is None or mask.shape is None:
            continue
        axis = len(queries.shape) - 2  # the sequence, with heads apart or together
        if len(mask.shape) < 2 or mask.shape[-2] != 1 or queries.shape[axis] == 1:
            continue
        # Keys are as many as queries where a model attends to itself; their axis leaves the loop.
        same = mask.shape[-1] == queries.shape[axis]
        source, place = (mask, len(mask.shape) - 1) if same else (queries, axis)
        name = f"{node.name}.mask"
        length = make_node("Shape", [source], f"{name}.length", {"start": place, "end": place + 1})
        ones = add_initializer(model.graph, "loopedge.one_row", np.ones(1, np.int64))
        sizes = make_node("Concat", [length.outputs[0], ones], f"{name}.sizes", {"axis": 0})
        wide = make_node("Expand", [mask, sizes.outputs[0]], name)
        wide.outputs[0].type = mask.type
        wide.outputs[0].shape = ir.Shape([*mask.shape[:-2], queries.shape[axis], mask.shape[-1]])
        for new in (length, sizes, wide):
            insert_before(node, new)
        node.replace_input_with(3, wide.outputs[0])
        changed = True
    return changed


def _split(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """Return what is split into heads, (batch, sequence, width), and the number of heads."""
    swap = None if value is None else value.producer()
    if swap is None or swap.op_type != "Transpose" or _perm(swap) != SWAP_HEADS:
        return None
    inner = swap.inputs[0]
    reshape = None if inner is None else inner.producer()
    if reshape is None or reshape.op_type != "Reshape" or inner is None or inner.shape is None:
        return None
    source = reshape.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 3 or len(inner.shape) != 4:
        return None
    heads, size, width = inner.shape[2], inner.shape[3], source.shape[2]
    if not (isinstance(heads, int) and isinstance(size, int) and heads * size == width):
        return None
    return source, heads


def _join(value: ir.Value) -> ir.Node | None:
    """Return the Reshape that joins the heads again."""
    users = list(value.consumers())
    if len(users) != 1 or users[0].op_type != "Transpose" or _perm(users[0]) != SWAP_HEADS:
        return None
    after = list(users[0].outputs[0].consumers())
    if len(after) != 1 or after[0].op_type != "Reshape":
        return None
    shape = after[0].outputs[0].shape
    return after[0] if shape is not None and len(shape) == 3 else None


def _perm(node: ir.Node) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return () if attribute is None else tuple(attribute.as_ints())


def _remove_unused(swapped: ir.Value | None, attention: ir.Node) -> None:
    """Remove the Transpose after the old Attention, the Attention, and what fed it alone."""
    pending = [None if swapped is None else swapped.producer(), attention]
    while pending:
        node = pending.pop(0)
        if node is None or node.graph is None or any(out.uses() for out in node.outputs):
            continue
        feeding = [value.producer() for value in node.inputs if value is not None]
        node.graph.remove(node, safe=True)
        pending += [
            maker
            for maker in feeding
            if maker is not None and maker.op_type in {"Transpose", "Reshape", "Attention"}
        ]
