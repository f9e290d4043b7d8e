"""Take what a Loop stacks as it is, where all its entries are put together again."""

import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.view import iteration_number
from loopedge.graph.editing import make_node, replace_node

__all__ = ["take_stacks_whole"]


def take_stacks_whole(model: ir.Model) -> None:
    """Replace a Concat of all entries of a stack by the stack, with its first axis moved, in place.

    An exporter writes the outputs of every iteration as a Concat of one Unsqueeze per iteration; a Loop stacks them
    itself. What is read by nothing afterwards may be dropped.
    """
    for loop in loops_among(model.graph):
        count = loop.trip_count
        for stack in loop.stacked if count else ():
            for concat in list(_concats_behind(stack)):
                _take_whole(model.graph, loop, stack, concat)


def _concats_behind(stack: ir.Value) -> dict[ir.Node, None]:
    """Return the Concats that read entries of a stack, or what raises one by an axis."""
    found: dict[ir.Node, None] = {}
    for pick in stack.consumers():
        users = [*pick.outputs[0].consumers()]
        users += [
            user for raised in users for output in raised.outputs for user in output.consumers()
        ]
        found.update((user, None) for user in users if user.op_type == "Concat" and not user.domain)
    return {concat: None for concat in found if concat.graph is stack.graph}


def _take_whole(graph: ir.Graph, loop: LoopView, stack: ir.Value, concat: ir.Node) -> None:
    """Replace one Concat, where it puts all entries together along an axis that each of them has one of."""
    axis, shape = concat.attributes.get_int("axis", 0), stack.shape
    entries = [_entry(value, stack) for value in concat.inputs]
    raised = [place is not None for _, place in entries]
    if shape is None or [t for t, _ in entries] != list(range(loop.trip_count or 0)):
        return
    rank = len(shape) if all(raised) else len(shape) - 1  # of what is put together
    if not -rank <= axis < rank or any(raised) != all(raised):
        return
    axis %= rank
    if any(place is not None and place % rank != axis for _, place in entries):
        return
    if not all(raised) and shape[1 + axis] != 1:
        return
    name = concat.name or "stacked"
    perm = [*range(1, len(shape))]
    perm.insert(axis, 0)
    nodes = [
        make_node(
            "Transpose", [stack], f"{name}.turned" if not all(raised) else name, {"perm": perm}
        )
    ]
    if axis == 0:
        nodes = [make_node("Identity", [stack], name)] if all(raised) else []
    if not all(raised):
        turned = nodes[-1].outputs[0] if nodes else stack
        zero = iteration_number(graph, 0)  # a Gather of one entry drops the axis, in every opset
        nodes.append(make_node("Gather", [turned, zero], name, {"axis": axis + 1}))
    for node in nodes:
        node.outputs[0].type = concat.outputs[0].type
    replace_node(concat, nodes)


def _entry(value: ir.Value | None, stack: ir.Value) -> tuple[int | None, int | None]:
    """Return which entry of a stack a value is, and the axis by which it was raised; None where it is neither."""
    node, axis = (None if value is None else value.producer()), None
    if node is not None and node.op_type == "Unsqueeze" and not node.domain:
        axis = _axis(node)
        node = None if node.inputs[0] is None or axis is None else node.inputs[0].producer()
    if node is None or node.op_type != "Gather" or node.inputs[0] is not stack:
        return None, None
    return _number(node.inputs[1]), axis


def _axis(raised: ir.Node) -> int | None:
    """Return the one axis of an Unsqueeze, which is an attribute in old opsets."""
    attribute = raised.attributes.get("axes")
    if attribute is not None:
        axes = list(attribute.as_ints())
        return axes[0] if len(axes) == 1 else None
    return _number(raised.inputs[1]) if len(raised.inputs) > 1 else None


def _number(value: ir.Value | None) -> int | None:
    """Return a stored integer of one element."""
    tensor = None if value is None else value.const_value
    if tensor is None or tensor.size != 1 or not tensor.dtype.is_integer():
        return None
    return int(tensor.numpy().item())
