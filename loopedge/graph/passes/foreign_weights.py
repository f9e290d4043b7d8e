"""Write the weights of another tool's graph as loopedge writes its own: stored once, read by linears."""

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import remove_identities, structure
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.operators import LINEARS
from loopedge.graph.passes.half_products import widen_half_products
from loopedge.graph.passes.layout import fold_weight_layouts, turn_first_factors
from loopedge.graph.passes.stored_weights import drop_constant_states, fold_weight_chains
from loopedge.graph.weight_reads import weight_reads

__all__ = ["DEFAULTS_IR_VERSION", "normalise_weights"]

DEFAULTS_IR_VERSION = 4
"""Before it a graph listed all its initializers among its inputs, and nothing could be fed in their place."""


def normalise_weights(model: ir.Model) -> bool:
    """Let every product with a weight be a linear with a stored float32 weight where that is possible, in place.

    Requires: nothing.

    Ensures: the outputs and the values are as they were, and the inputs, but for weights that were listed among them: what is
    stored in another form cannot be fed; calls of functions are their nodes; constants
    are initializers of the main graph; what stays no linear is as the other tool wrote it.

    Returns:
        Whether anything changed.
    """
    before = structure(model)
    if model.functions:
        common.InlinePass()(model)
    remove_identities(model)
    for one_pass in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
    ):
        one_pass(model)
    _take_from_inputs(model)
    drop_constant_states(model)
    fold_weight_chains(model)
    if _lacks_shapes(model):
        keep_names_apart(model)  # it knows values by their names
        common.ShapeInferencePass()(model)
    fold_weight_layouts(model)
    turn_first_factors(model)
    widen_half_products(model)
    return structure(model) != before


def _lacks_shapes(model: ir.Model) -> bool:
    return any(
        value is not None and value.shape is None and value.const_value is None
        for node in model.graph.all_nodes()
        if node.op_type in LINEARS | {"Conv"}
        for value in node.inputs[:2]
    )


def _take_from_inputs(model: ir.Model) -> None:
    """Let no input be a weight that products or lookups read: integers, or another layout, will stand in its place."""
    defaults = [value for value in model.graph.inputs if value.const_value is not None]
    if not defaults:
        return
    fixed = {weight for read in weight_reads(model) for weight in read.weights}
    if model.ir_version < DEFAULTS_IR_VERSION:
        fixed.update(defaults)
    for value in defaults:
        if value in fixed or any(_looks_up(node, place) for node, place in value.uses()):
            model.graph.inputs.remove(value)


def _looks_up(node: ir.Node, place: int) -> bool:
    return node.op_type == "Gather" and place == 0 and not node.domain
