"""Passes that shrink a graph without changing what it computes."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.editing import add_initializer, remove_identities, structure
from loopedge.graph.operators import Fact, having

__all__ = ["hoist_invariants", "simplify_reshapes", "strip_metadata", "tidy"]

PART_PREFIXES = ("prelude/", "core/", "coda/")
"""What the values of nodes are called; weights keep the names of their parameters."""


def tidy(model: ir.Model) -> bool:
    """Merge equal nodes, lift constants, drop what is unused, and strip capture metadata, in place.

    Requires: nothing.

    Ensures: all constants are initializers of the main graph, equal shape constants one; nodes stand in an order
    in which they can run; what is not read is gone.

    Returns:
        Whether anything changed.
    """
    before = structure(model)
    remove_identities(model)
    for one_pass in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
    ):
        one_pass(model)
    _merge_equal_constants(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    strip_metadata(model)
    return structure(model) != before


def _merge_equal_constants(model: ir.Model) -> None:
    """Keep one initializer per distinct shape constant and per distinct derived constant.

    Derived ones are what folding made of the nodes of a part, as the ``gamma + 1`` of a norm that
    the core applies several times. Other float initializers stay apart: tables and weights may hold
    equal values by chance.
    """
    kept: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None:
            continue
        shape_like = tensor.size <= 16 and tensor.dtype.is_integer()
        if not shape_like and not name.startswith(PART_PREFIXES):
            continue
        first = kept.setdefault((tensor.dtype, tuple(value.shape or ()), tensor.tobytes()), value)
        if first is not value and not value.is_graph_output():
            ir.convenience.replace_all_uses_with(value, first)
            del model.graph.initializers[name]


def strip_metadata(model: ir.Model) -> bool:
    """Drop doc strings and node and value metadata, which hold absolute source paths, in place.

    Requires: nothing.

    Ensures: the properties of the model itself are as they were.

    Returns:
        Whether anything changed.
    """
    before, kept = structure(model), dict(model.metadata_props)
    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.metadata_props.update(kept)
    for graph in (model.graph, *model.graph.subgraphs()):
        made = (output for node in graph for output in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            value.metadata_props.clear()
            value.doc_string = None
    return structure(model) != before


def simplify_reshapes(model: ir.Model) -> bool:
    """Replace computed Reshape shapes by constants where the symbolic shapes allow it, in place.

    A Reshape to the shape that its input has already is passed over.

    A dimension equal to the input's at the same place becomes 0 (copy), one other may be -1. That
    removes the Shape, Gather and Concat nodes that an exporter emits for dynamic axes, which would
    run again in every iteration of a loop.

    Requires: shapes are known, free sizes by name; values without are left alone.

    Ensures: what made the replaced shapes may be read by nothing; `tidy` drops it.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Reshape" or node.domain or node.inputs[1] is None:
            continue
        if node.inputs[0] is not None and _changes_nothing(node):
            changed |= bool(node.outputs[0].uses())
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            continue
        if node.inputs[1].const_value is not None:
            continue
        shape = _constant_shape(node.inputs[0], node.outputs[0])
        if shape is None:
            continue
        value = add_initializer(
            model.graph, f"{node.outputs[0].name}.shape", np.array(shape, np.int64)
        )
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)  # 0 by default; before opset 14 there is none
        changed = True
    return changed


def _changes_nothing(node: ir.Node) -> bool:
    source, target = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or target.shape is None or target.is_graph_output():
        return False
    known = all(isinstance(dim, int) or dim.value is not None for dim in target.shape)
    return known and list(source.shape) == list(target.shape)


def _constant_shape(source: ir.Value | None, target: ir.Value) -> list[int] | None:
    if source is None or source.shape is None or target.shape is None:
        return None
    shape: list[int] = []
    for axis, dim in enumerate(target.shape):
        if isinstance(dim, int):
            if dim == 0:
                return None
            shape.append(dim)
        elif (
            axis < len(source.shape)
            and dim.value is not None
            and not isinstance(source.shape[axis], int)
            and source.shape[axis] == dim
        ):
            shape.append(0)
        else:
            shape.append(-1)
    return shape if shape.count(-1) <= 1 else None


def hoist_invariants(model: ir.Model) -> bool:
    """Move nodes of Loop bodies that read nothing of the body into the graph around it, in place.

    Inner Loops first: what depends on neither loop leaves both.

    Requires: constants of bodies are initializers of the main graph, or nodes; states keep their shapes.

    Ensures: every node of a body reads something that the body makes, gives one of its outputs, holds a body
    of its own or draws at random.

    Returns:
        Whether anything changed.
    """
    return _hoist_from(model.graph)


def _measure_outside(loop: LoopView) -> bool:
    """Let nodes of a body that ask for the shape of a state ask for that of what it starts from, in place."""
    changed = False
    for state, start in zip(loop.before, loop.initial, strict=True):
        for node, place in list(state.uses()) if start is not None else ():
            if node.op_type == "Shape" and not node.domain:
                node.replace_input_with(place, start)
                changed = True
    return changed


def _hoist_from(graph: ir.Graph) -> bool:
    changed = False
    for loop in loops_among(graph):
        body = loop.body
        changed |= _hoist_from(body)
        changed |= _measure_outside(loop)
        local = set(body.inputs)
        outputs = set(body.outputs)
        for node in list(body):
            reads_body = any(value in local for value in node.inputs)
            has_graph = any(
                attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
                for attribute in node.attributes.values()
            )
            random = node.op_type in having(Fact.RANDOM)
            if reads_body or has_graph or random or any(out in outputs for out in node.outputs):
                local.update(node.outputs)
                continue
            body.remove(node)
            graph.insert_before(loop.node, node)
            changed = True
    return changed
