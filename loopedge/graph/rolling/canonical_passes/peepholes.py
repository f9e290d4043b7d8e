"""Nodes and pairs of nodes that change nothing, passed over: one iteration has them and another does not."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer
from loopedge.graph.naming import mark_made_up
from loopedge.graph.rolling.canonical_passes.content import is_constant
from loopedge.graph.shapes import constant_ints

__all__ = ["pass_over"]

ALONE = frozenset({"Concat", "Max", "Mean", "Min", "Sum"})
"""Of one input they give it."""
SPLIT = "loopedge.split"
"""Under it a SplitToSequence keeps the Split that gives its parts."""
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def pass_over(model: ir.Model) -> bool:
    """Let what reads a node of the main graph that changes nothing read what that node reads, in place.

    Requires: types and ranks are noted as far as they are known.

    Ensures: every value that is left is what it was.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        rule = None if node.domain else RULES.get(node.op_type)
        if rule is None or not node.inputs or node.inputs[0] is None or _idle(node):
            continue
        source = rule(node, model)
        if source is None:
            continue
        if source is not node.outputs[0]:
            ir.convenience.replace_all_uses_with(node.outputs[0], source)
        changed = True
    return changed


def _idle(node: ir.Node) -> bool:
    """Tell whether a node gives an output of the graph, whose name stays, or nothing that is read."""
    return node.outputs[0].is_graph_output() or not node.outputs[0].uses()


def _cast(node: ir.Node, model: ir.Model) -> ir.Value | None:
    source, wanted = node.inputs[0], node.attributes.get("to")
    if source is None or wanted is None or wanted.type != ir.AttributeType.INT:
        return None
    return source if source.dtype == wanted.as_int() else None


def _alone(node: ir.Node, model: ir.Model) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Pass over a Dropout of inference whose mask is not read."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None:
        if not is_constant(training) or training.const_value is None:
            return None
        if bool(training.const_value.numpy().reshape(-1).any()):
            return None
    opset = model.opset_imports.get("", 1)
    if opset < 7 and not node.attributes.get_int("is_test", 0):
        return None
    masked = any(
        value.uses() or value.is_graph_output() for value in node.outputs[1:] if value.name
    )
    return None if masked else node.inputs[0]


def _transpose(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Pass over a Transpose that keeps the order; two in a row become one."""
    if "perm" not in node.attributes or node.inputs[0] is None:
        return None
    order, source = list(node.attributes["perm"].as_ints()), node.inputs[0]
    if order == list(range(len(order))):
        return source
    inner = source.producer()
    if (
        inner is None
        or inner.op_type != "Transpose"
        or inner.domain
        or "perm" not in inner.attributes
    ):
        return None
    first = list(inner.attributes["perm"].as_ints())
    if inner.graph is not node.graph or len(first) != len(order) or inner.inputs[0] is None:
        return None
    both = [first[axis] for axis in order]
    if both == list(range(len(both))):
        return inner.inputs[0]
    node.replace_input_with(0, inner.inputs[0])
    node.attributes["perm"] = ir.AttrInt64s("perm", both)
    return node.outputs[0]


def _axes(node: ir.Node) -> list[int] | None:
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return constant_ints(value) if is_constant(value) else None


def _pair(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Pass over a Squeeze of an Unsqueeze along the same axes, and the other way round."""
    opposite = {"Squeeze": "Unsqueeze", "Unsqueeze": "Squeeze"}[node.op_type]
    source = node.inputs[0]
    inner = None if source is None else source.producer()
    if inner is None or inner.op_type != opposite or inner.domain or inner.graph is not node.graph:
        return None
    axes = _axes(node)
    same = axes is not None and sorted(axes) == sorted(_axes(inner) or [])
    return inner.inputs[0] if same and all(axis >= 0 for axis in axes or []) else None


def _reshape(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Let a Reshape to a shape that copies no size read what was reshaped before."""
    shape = node.inputs[1] if len(node.inputs) > 1 else None
    lengths = constant_ints(shape) if is_constant(shape) else None
    source = node.inputs[0]
    inner = None if source is None else source.producer()
    if lengths is None or 0 in lengths or inner is None or inner.op_type not in VIEWS:
        return None
    if inner.domain or inner.graph is not node.graph or inner.inputs[0] is None:
        return None
    node.replace_input_with(0, inner.inputs[0])
    return node.outputs[0]


def _shape(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Store the shape of what is of one size always."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    lengths = list(value.shape)[_cut(node, len(value.shape))]
    return _stored_sizes(node, model, lengths, scalar=False)


def _cut(node: ir.Node, rank: int) -> slice:
    end = node.attributes.get_int("end", rank)
    return slice(node.attributes.get_int("start", 0), end)


def _gather(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Store a size that is always the same, of a shape that is not."""
    source = node.inputs[0]
    shape = None if source is None else source.producer()
    if shape is None or shape.op_type != "Shape" or shape.domain or shape.inputs[0] is None:
        return None
    value, place = shape.inputs[0], node.inputs[1]
    places = constant_ints(place) if is_constant(place) else None
    if value.shape is None or places is None or place is None or place.const_value is None:
        return None
    lengths = list(value.shape)[_cut(shape, len(value.shape))]
    if not all(-len(lengths) <= each < len(lengths) for each in places):
        return None
    scalar = not len(place.const_value.shape)
    return _stored_sizes(node, model, [lengths[each] for each in places], scalar=scalar)


def _stored_sizes(
    node: ir.Node, model: ir.Model, lengths: list[int | ir.SymbolicDim], *, scalar: bool
) -> ir.Value | None:
    if not all(isinstance(length, int) for length in lengths):
        return None
    array = np.array(lengths, np.int64)
    return add_initializer(
        model.graph, f"{node.name}.sizes", array.reshape(()) if scalar else array
    )


def _sequence_item(node: ir.Node, model: ir.Model) -> ir.Value | None:
    """Take a part of what is split by a Split: a sequence of tensors cannot be stacked or carried."""
    source = node.inputs[0]
    split = None if source is None else source.producer()
    if split is None or split.op_type != "SplitToSequence" or split.graph is not model.graph:
        return None
    value = split.inputs[0]
    axis = split.attributes.get_int("axis", 0)
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    parts, place = _part_lengths(split, value.shape[axis]), constant_ints(node.inputs[1])
    if parts is None or place is None or not -len(parts) <= place[0] < len(parts):
        return None
    if SPLIT not in split.meta:
        split.meta[SPLIT] = _as_split(model, split, value, parts)
    return split.meta[SPLIT].outputs[place[0]]  # type: ignore[no-any-return]


def _as_split(model: ir.Model, split: ir.Node, value: ir.Value, parts: list[int]) -> ir.Node:
    attributes = [ir.AttrInt64("axis", split.attributes.get_int("axis", 0))]
    inputs = [value]
    if model.opset_imports.get("", 1) < 13:
        attributes.append(ir.AttrInt64s("split", parts))
    else:
        lengths = np.array(parts, np.int64)
        inputs.append(add_initializer(model.graph, f"{split.name}.parts", lengths))
    name = f"{split.name}.parts"
    made = ir.Node("", "Split", inputs, attributes, num_outputs=len(parts), name=name)
    mark_made_up(made)
    for place, output in enumerate(made.outputs):
        output.name = f"{name}.{place}"
        output.type = None if value.dtype is None else ir.TensorType(value.dtype)
        mark_made_up(output)
    model.graph.insert_before(split, made)
    return made


def _part_lengths(split: ir.Node, length: int | ir.SymbolicDim) -> list[int] | None:
    """Return the lengths of the parts that a SplitToSequence gives."""
    if not isinstance(length, int) or len(split.inputs) < 2 or split.inputs[1] is None:
        return None
    lengths = split.inputs[1].const_value
    if lengths is None or not is_constant(split.inputs[1]):
        return None
    if lengths.shape.rank():
        return [int(part) for part in lengths.numpy()]
    part = int(lengths.numpy())
    if part < 1:
        return None
    return [min(part, length - start) for start in range(0, length, part)]


RULES: dict[str, Callable[[ir.Node, ir.Model], ir.Value | None]] = {
    "Cast": _cast,
    "Dropout": _dropout,
    "Gather": _gather,
    "Reshape": _reshape,
    "SequenceAt": _sequence_item,
    "Shape": _shape,
    "Squeeze": _pair,
    "Transpose": _transpose,
    "Unsqueeze": _pair,
    **dict.fromkeys(ALONE, _alone),
}
