"""The passes over a freshly assembled graph, in their order."""

import onnx_ir as ir

from loopedge.graph.passes.attention import expand_masks, merge_head_axes
from loopedge.graph.passes.folding import fold_constants
from loopedge.graph.passes.layout import fold_weight_layouts
from loopedge.graph.passes.norms import fold_unit_scales, fuse_rms_norms
from loopedge.graph.passes.simplify import hoist_invariants, simplify_reshapes, tidy
from loopedge.graph.positions.coda import select_positions_first

__all__ = ["optimise"]


def optimise(graph: ir.Model) -> None:
    """Run the passes that make a freshly assembled loop form ready for the device."""
    fold_weight_layouts(graph)
    simplify_reshapes(graph)
    fold_unit_scales(graph)
    fold_constants(graph)
    fuse_rms_norms(graph)
    expand_masks(graph)
    merge_head_axes(graph)
    hoist_invariants(graph)
    tidy(graph)
    select_positions_first(graph)
