"""One form for graphs that compute the same: what repeats is then equal, node for node and weight for weight."""

import logging

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import remove_identities
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.passes.foreign_weights import DEFAULTS_IR_VERSION
from loopedge.graph.passes.simplify import simplify_reshapes
from loopedge.graph.rolling.canonical_passes.common_nodes import merge_common_nodes
from loopedge.graph.rolling.canonical_passes.constant_folding import fold_constants
from loopedge.graph.rolling.canonical_passes.content import Contents, merge_equal
from loopedge.graph.rolling.canonical_passes.inference import infer
from loopedge.graph.rolling.canonical_passes.lifting import inline_constant_branches, lift_constants
from loopedge.graph.rolling.canonical_passes.moved_weights import move_weights
from loopedge.graph.rolling.canonical_passes.peepholes import pass_over

__all__ = ["canonicalise"]

log = logging.getLogger(__name__)

MOST_ROUNDS = 12


def canonicalise(model: ir.Model) -> None:
    """Bring a graph into a form in which its iterations are as equal as they can be, in place.

    Requires: nothing; the graph may be of any tool.

    Ensures: the outputs are as they were but for rounding; inputs and outputs keep their names, but for weights that
    old files list among the inputs; functions are inlined; constants are initializers of the main graph, those of
    equal content one; what depends on constants alone is folded where that takes no more memory; nothing is computed
    twice or read by nothing; types and shapes are noted; bodies of control flow compute as they did.
    """
    _flatten(model)
    contents = Contents()
    said = [(value.type, value.shape) for value in model.graph.outputs]
    for _ in range(MOST_ROUNDS):
        # Once the sizes that are always the same are known: the others are then few.
        if not _simplify(model, contents) and not simplify_reshapes(model):
            break
    for value, (kind, shape) in zip(model.graph.outputs, said, strict=True):
        value.type, value.shape = kind or value.type, shape or value.shape
    model.graph.sort()
    keep_names_apart(model)


def _simplify(model: ir.Model, contents: Contents) -> bool:
    """Run each pass once, and tell whether another round may find more."""
    changed = merge_equal(model.graph, contents)
    changed |= merge_common_nodes(model.graph)
    common.RemoveUnusedNodesPass()(model)
    infer(model)
    changed |= pass_over(model)
    changed |= move_weights(model, contents)
    changed |= fold_constants(model)
    if inline_constant_branches(model):
        changed |= lift_constants(model)
        model.graph.sort()
    remove_identities(model)
    common.RemoveUnusedNodesPass()(model)
    return changed


def _flatten(model: ir.Model) -> None:
    """Leave one graph of nodes and stored values, besides the bodies of control flow."""
    if model.functions:
        try:
            common.InlinePass()(model)
        except (ValueError, ir.passes.PassError) as error:
            log.info("functions were not inlined: %s", error)
    if model.ir_version < DEFAULTS_IR_VERSION:
        for value in [each for each in model.graph.inputs if each.const_value is not None]:
            model.graph.inputs.remove(value)
        model.ir_version = DEFAULTS_IR_VERSION
    lift_constants(model)
    remove_identities(model)
    model.graph.sort()
