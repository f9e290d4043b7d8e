"""One form for graphs that compute the same: what repeats is then equal, node for node and weight for weight."""

import logging

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import remove_identities
from loopedge.graph.passes.foreign_weights import DEFAULTS_IR_VERSION
from loopedge.graph.passes.simplify import simplify_reshapes
from loopedge.graph.rolling.common_nodes import merge_common_nodes
from loopedge.graph.rolling.constant_folding import fold_constants
from loopedge.graph.rolling.content import Contents, merge_equal
from loopedge.graph.rolling.inference import infer

__all__ = ["canonicalise"]

log = logging.getLogger(__name__)

MOST_ROUNDS = 8


def canonicalise(model: ir.Model) -> None:
    """Bring a graph into a form in which its iterations are as equal as they can be, in place.

    Requires: nothing; the graph may be of any tool.

    Ensures: the outputs are as they were but for rounding; inputs and outputs keep their names; functions are inlined;
    constants are initializers of the main graph, those of equal content one; what depends on constants alone is
    folded where that saves memory; nothing is computed twice or for nobody; types and shapes are noted.
    """
    _flatten(model)
    contents = Contents()
    for _ in range(MOST_ROUNDS):
        changed = merge_equal(model.graph, contents)
        changed |= merge_common_nodes(model.graph)
        common.RemoveUnusedNodesPass()(model)
        infer(model)
        changed |= simplify_reshapes(model)
        changed |= fold_constants(model)
        remove_identities(model)
        common.RemoveUnusedNodesPass()(model)
        if not changed:
            break
    model.graph.sort()


def _flatten(model: ir.Model) -> None:
    """Leave one graph of nodes and stored values, besides the bodies of control flow."""
    if model.functions:
        try:
            common.InlinePass()(model)
        except ValueError as error:
            log.info("functions were not inlined: %s", error)
    if model.ir_version < DEFAULTS_IR_VERSION:
        for value in [each for each in model.graph.inputs if each.const_value is not None]:
            model.graph.inputs.remove(value)
    remove_identities(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    model.graph.sort()
