"""Norms as single operators, with scales of one row.

Many models spell x * rsqrt(mean(x * x) + eps) out in PyTorch (those of transformers do), and ONNX Runtime fuses
that spelling into nothing; opset 23 has the operator. And norms without weights are captured with a scale
as large as the activations.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.operators import Fact, having

__all__ = ["UNIT_SCALE_PREFIX", "fold_unit_scales", "fuse_rms_norms"]

RMS_NORM_OPSET = 23
UNIT_SCALE_PREFIX = "loopedge.ones."
"""Names of the scales of norms without weights; behind it their shape and type."""


def fuse_rms_norms(model: ir.Model) -> bool:
    """Replace Pow, ReduceMean, Add, Sqrt, Reciprocal and Mul by RMSNormalization, in place.

    A weight of one dimension that multiplies the result becomes the operator's scale; a norm without
    one gets ones.

    Requires: constants are folded (`fold_constants`): epsilon, exponent and axes are initializers. Opset 23 or
    later: nothing is changed in others, which do not know the operator.

    Ensures: a norm over the last axis, with a width that is known, is one node.

    Returns:
        Whether anything changed.
    """
    if (model.opset_imports.get("") or 0) < RMS_NORM_OPSET:
        return False
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Mul" or node.domain or node.graph is None:
            continue
        found = _norm(node)
        if found is None:
            continue
        x, epsilon, width = found
        last, scale = _scaled(node, width)
        if scale is None:
            scale = _unit_scale(model, np.ones(width, np.float32))
        attributes = {"axis": -1, "epsilon": epsilon}
        name = (last.name or "norm").replace("Mul", "RMSNormalization")
        inner = node.outputs[0]
        replace_node(last, [make_node("RMSNormalization", [x, scale], name, attributes)])
        if last is not node and not inner.uses():
            node.graph.remove(node, safe=True)
        changed = True
    return changed


def _norm(node: ir.Node) -> tuple[ir.Value, float, int] | None:
    """Return x, epsilon and the width of the last axis, where a Mul is x * rsqrt(mean(x^2) + eps)."""
    first, second = node.inputs
    for x, root in ((first, second), (second, first)):
        if x is None or root is None or x.dtype != ir.DataType.FLOAT or not x.shape:
            continue
        width = x.shape[-1]
        added = _chain(root, "Reciprocal", "Sqrt")
        if added is None or added.op_type != "Add":
            continue
        for mean, epsilon in (tuple(added.inputs), tuple(reversed(added.inputs))):
            value = _scalar(epsilon)
            ranked = epsilon is not None and len(epsilon.shape or ()) <= len(x.shape)
            if value is None or not ranked or not isinstance(width, int):
                continue
            if _is_mean_of_squares(mean, x):
                return x, value, width
    return None


def _chain(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Follow nodes of these types upwards; return what makes the input of the last one."""
    for op_type in op_types:
        maker = value.producer()
        if maker is None or maker.op_type != op_type or maker.inputs[0] is None:
            return None
        value = maker.inputs[0]
    return value.producer()


def _is_mean_of_squares(value: ir.Value | None, x: ir.Value) -> bool:
    mean = None if value is None else value.producer()
    if mean is None or mean.op_type != "ReduceMean" or len(mean.inputs) != 2:
        return False
    kept = mean.attributes.get("keepdims")
    axes = None if mean.inputs[1] is None else ir.convenience.get_const_tensor(mean.inputs[1])
    rank = len(x.shape or ())
    if axes is None or [int(axis) % rank for axis in axes.numpy().reshape(-1)] != [rank - 1]:
        return False
    if kept is not None and kept.as_int() != 1:
        return False
    square = None if mean.inputs[0] is None else mean.inputs[0].producer()
    if square is None or square.inputs[0] is not x:
        return False
    if square.op_type == "Mul":
        return square.inputs[1] is x
    return square.op_type == "Pow" and _scalar(square.inputs[1]) == 2.0


def _scaled(node: ir.Node, width: int) -> tuple[ir.Node, ir.Value | None]:
    """Return the node that multiplies the norm by a weight of its last axis, and the weight."""
    users = list(node.outputs[0].consumers())
    alone = len(users) == 1 and users[0].graph is node.graph
    if alone and users[0].op_type == "Mul" and not node.outputs[0].is_graph_output():
        for value in users[0].inputs:
            if value is not None and value is not node.outputs[0] and _has_shape(value, width):
                return users[0], value
    return node, None


def _has_shape(value: ir.Value, width: int) -> bool:
    return value.shape is not None and list(value.shape) == [width]


def _scalar(value: ir.Value | None) -> float | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def fold_unit_scales(model: ir.Model) -> bool:
    """Give norms without weights a constant scale, in place.

    torch.onnx.export writes ``F.rms_norm(x, (d,))`` and ``F.layer_norm(x, (d,))`` as norms whose
    scale is ``ones_like(x)``: as large as the activations and filled anew in every iteration. Ones
    of shape (d,) do the same.

    Requires: the shapes of what norms read are known; those without are left alone.

    Ensures: the scale of a norm over axes of fixed sizes is as large as these axes.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in model.graph.all_nodes():
        if node.op_type not in having(Fact.NORM) or node.domain or node.inputs[0] is None:
            continue
        shape, dtype = node.inputs[0].shape, node.inputs[0].dtype
        axis = node.attributes.get_int("axis", -1)
        if shape is None or dtype is None or not _is_ones(node.inputs[1]):
            continue
        normalised = [size for size in list(shape)[axis:] if isinstance(size, int)]
        if len(normalised) != len(list(shape)[axis:]):
            continue
        node.replace_input_with(1, _unit_scale(model, np.ones(normalised, dtype.numpy())))
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


def _unit_scale(model: ir.Model, ones: npt.NDArray[np.generic]) -> ir.Value:
    """Return the one initializer that holds these ones."""
    name = f"{UNIT_SCALE_PREFIX}{'x'.join(map(str, ones.shape))}.{ones.dtype}"
    return add_initializer(model.graph, name, ones)
