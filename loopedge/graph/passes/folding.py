"""Fold what depends on constants only."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import structure
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["fold_constants"]

MAX_FOLDED_ELEMENTS = 65_536


def fold_constants(model: ir.Model) -> bool:
    """Fold constant nodes and drop casts and copies that do nothing, in place.

    Requires: the weights are initializers of the main graph.

    Ensures: weights (initializers of two dimensions and more) and timestep tables keep their one copy and their
    name; no two values of the main graph and its bodies have one name.

    Returns:
        Whether anything changed.
    """
    from onnxscript import optimizer, rewriter  # extra `train`: quantize and profile do without

    before = structure(model)
    protected = {
        value
        for value in model.graph.initializers.values()
        if len(value.shape or ()) >= 2 or (value.name or "").startswith(TABLE_PREFIX)
    }

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(value in protected for value in node.inputs) else None

    # Not optimize_ir: it merges initializers of equal bytes, and the tables of an untrained model
    # are equal by chance only.
    with _quiet():
        for _ in range(2):
            optimizer.fold_constants_ir(
                model,
                onnx_shape_inference=False,
                input_size_limit=MAX_FOLDED_ELEMENTS,
                output_size_limit=MAX_FOLDED_ELEMENTS,
                should_fold=should_fold,
            )
            rewriter.rewrite(model)
    common.NameFixPass()(model)
    _keep_names_apart(model)
    return structure(model) != before


@contextmanager
def _quiet() -> Iterator[None]:
    """Fold in silence: what the folder warns of or cannot fold does not matter to the user."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _keep_names_apart(model: ir.Model) -> None:
    """Rename values of Loop bodies that hide one of the graph around them.

    The rewriter numbers the constants that it makes per graph; a body's would clash once it is
    moved out.
    """
    taken: set[str | None] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        made = (output for node in graph for output in node.outputs)
        # An input with a default is an initializer too.
        values = list(dict.fromkeys((*graph.inputs, *graph.initializers.values(), *made)))
        own = {value.name for value in values}
        for value in values:
            if value.name in taken:
                number = 1
                while f"{value.name}.{number}" in taken | own:
                    number += 1
                value.name = f"{value.name}.{number}"
            taken.add(value.name)
