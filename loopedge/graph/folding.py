"""Fold what depends on constants only."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.editing import add_initializer
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["fold_constants", "fold_unit_scales"]

MAX_FOLDED_ELEMENTS = 65_536
NORMS = ("LayerNormalization", "RMSNormalization")


def fold_constants(model: ir.Model) -> None:
    """Fold constant nodes and drop casts and copies that do nothing, in place.

    Weights (initializers of two dimensions and more) and timestep tables are never folded, so that
    each keeps its one copy and its name.
    """
    from onnxscript import optimizer, rewriter  # extra `train`: quantize and profile do without

    fold_unit_scales(model)
    protected = {
        value
        for value in model.graph.initializers.values()
        if len(value.shape or ()) >= 2 or (value.name or "").startswith(TABLE_PREFIX)
    }

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(value in protected for value in node.inputs) else None

    # Not optimize_ir: it merges initializers of equal bytes, and the tables of an untrained model
    # are equal by chance only.
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


def _keep_names_apart(model: ir.Model) -> None:
    """Rename values of Loop bodies that hide one of the graph around them.

    The rewriter numbers the constants that it makes per graph; a body's would clash once it is
    moved out.
    """
    taken: set[str | None] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        made = (output for node in graph for output in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            name, number = value.name, 1
            while value.name in taken:
                value.name = f"{name}.{number}"
                number += 1
            taken.add(value.name)


def fold_unit_scales(model: ir.Model) -> bool:
    """Give norms without weights a constant scale, in place.

    torch.onnx.export writes ``F.rms_norm(x, (d,))`` and ``F.layer_norm(x, (d,))`` as norms whose
    scale is ``ones_like(x)``: as large as the activations and filled anew in every iteration. Ones
    of shape (d,) do the same.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in model.graph.all_nodes():
        if node.op_type not in NORMS or node.domain or node.inputs[0] is None:
            continue
        shape, dtype = node.inputs[0].shape, node.inputs[0].dtype
        axis = node.attributes.get_int("axis", -1)
        if shape is None or dtype is None or not _is_ones(node.inputs[1]):
            continue
        normalised = [size for size in list(shape)[axis:] if isinstance(size, int)]
        if len(normalised) != len(list(shape)[axis:]):
            continue
        ones = np.ones(normalised, dtype.numpy())
        name = "loopedge.ones." + "x".join(map(str, ones.shape)) + f".{dtype.name.lower()}"
        scale = model.graph.initializers.get(name)
        node.replace_input_with(1, scale or add_initializer(model.graph, name, ones))
        changed = True
    return changed


def _is_ones(value: ir.Value | None) -> bool:
    """Return whether ``value`` is made as ones of a shape that is known at run time only."""
    made = None if value is None else value.producer()
    if made is None:
        return False
    filled: ir.TensorProtocol | None = None
    if made.op_type == "ConstantOfShape" and "value" in made.attributes:
        filled = made.attributes["value"].as_tensor()
    elif made.op_type == "Expand" and made.inputs[0] is not None:
        filled = ir.convenience.get_const_tensor(made.inputs[0])
    return filled is not None and bool((filled.numpy() == 1).all())
