"""Write the weights of another tool's graph as loopedge writes its own: stored once, read by linears."""

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import structure
from loopedge.graph.naming import keep_names_apart
from loopedge.graph.operators import LINEARS
from loopedge.graph.passes.half_products import widen_half_products
from loopedge.graph.passes.layout import fold_weight_layouts, turn_first_factors
from loopedge.graph.passes.stored_weights import drop_constant_states, fold_weight_chains

__all__ = ["normalise_weights"]


def normalise_weights(model: ir.Model) -> bool:
    """Let every product with a weight be a linear with a stored float32 weight where that is possible, in place.

    Requires: nothing.

    Ensures: the inputs, the outputs and the values are as they were; calls of functions are their nodes; constants
    are initializers of the main graph; what stays no linear is as the other tool wrote it.

    Returns:
        Whether anything changed.
    """
    before = structure(model)
    if model.functions:
        common.InlinePass()(model)
    for one_pass in (
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
    ):
        one_pass(model)
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
