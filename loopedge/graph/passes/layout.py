"""Store every linear weight once, as [in, out].

PyTorch keeps a linear weight as [out, in], so a captured graph reads it through a Transpose. ONNX
Runtime folds such a Transpose into a second copy (inside a Loop body into one more). This pass
folds it into the stored tensor; where another node reads the weight as it is (a tied embedding), the
stored layout stays and the MatMul adapts: x W^T = (W x^T)^T. A convolution of kernel one is a linear
over the channels, and is stored and computed as one.
"""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import make_node, replace_node

__all__ = ["fold_weight_layouts"]

LAST_TWO_SWAPPED = (1, 0)


def fold_weight_layouts(model: ir.Model) -> bool:
    """Fold Transposes of two-dimensional weights, in place.

    Requires: the weights are initializers of the main graph.

    Ensures: every linear is a MatMul; no Transpose of a weight is left, except where a node other than MatMul
    reads it; a weight is stored once, as [in, out] unless something reads it as it is.

    Returns:
        Whether anything changed.
    """
    changed = _split_gemms(model) | _write_as_linears(model)
    for value in list(model.graph.initializers.values()):
        transposes = [node for node, _ in value.uses() if _is_transpose(node)]
        if not transposes or value.is_graph_output():
            continue
        if len(transposes) == len(value.uses()):
            _store_transposed(value, transposes)
            changed = True
        else:
            changed |= _adapt_readers(transposes)
    return changed


def _split_gemms(model: ir.Model) -> bool:
    """Write each plain Gemm with a stored weight as Transpose (where it has transB), MatMul, Add.

    A linear on two-dimensional inputs is captured as a Gemm, one on three as a MatMul; afterwards
    every linear is a MatMul.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Gemm" or node.domain or node.graph is None:
            continue
        x, weight, *bias = node.inputs
        attributes = {name: node.attributes.get(name) for name in ("alpha", "beta", "transA")}
        scaled = any(
            attribute is not None and attribute.value != (0 if name == "transA" else 1)
            for name, attribute in attributes.items()
        )
        if weight is None or weight.const_value is None or scaled:
            continue
        new: list[ir.Node] = []
        turned = node.attributes.get("transB")
        if turned is not None and turned.as_int():
            new.append(make_node("Transpose", [weight], f"{node.name}.weight", {"perm": [1, 0]}))
            weight = new[-1].outputs[0]
        new.append(make_node("MatMul", [x, weight], node.name or "Gemm"))
        if bias and bias[0] is not None:
            new.append(make_node("Add", [new[-1].outputs[0], bias[0]], f"{node.name}.bias"))
        replace_node(node, new)
        changed = True
    return changed


def _write_as_linears(model: ir.Model) -> bool:
    """Write each one-dimensional convolution of kernel one as Transpose, MatMul, Add, Transpose.

    int8 knows linears, and no convolutions; models that mix tokens (MLPMixer, TRM) spell linears so.
    """
    changed = False
    for weight in list(model.graph.initializers.values()):
        readers = weight.uses()
        if weight.const_value is None or not readers or weight.is_graph_output():
            continue
        if not all(index == 1 and _is_pointwise(node) for node, index in readers):
            continue
        array = np.ascontiguousarray(weight.const_value.numpy()[:, :, 0].T)  # [in, out]
        for node, _ in readers:
            _replace_convolution(node, weight, *array.shape)
        weight.const_value = ir.tensor(array, name=weight.name)
        weight.shape = ir.Shape(array.shape)
        changed = True
    return changed


def _replace_convolution(node: ir.Node, weight: ir.Value, inputs: int, outputs: int) -> None:
    x, _, *bias = node.inputs
    name = node.name or node.outputs[0].name or "Conv"
    turned = make_node("Transpose", [x], f"{name}.turn", {"perm": [0, 2, 1]})
    new = [turned, make_node("MatMul", [turned.outputs[0], weight], name)]
    if bias and bias[0] is not None:
        new.append(make_node("Add", [new[-1].outputs[0], bias[0]], f"{name}.bias"))
    for made in new:
        _set_turned(made.outputs[0], x, inputs if made is turned else outputs)
    back = make_node("Transpose", [new[-1].outputs[0]], f"{name}.back", {"perm": [0, 2, 1]})
    replace_node(node, [*new, back])


def _set_turned(value: ir.Value, x: ir.Value | None, channels: int) -> None:
    """Give a value the type and the shape (batch, length, channels) that x (batch, channels, length) has."""
    value.type = None if x is None else x.type
    if x is not None and x.shape is not None:
        value.shape = ir.Shape([x.shape[0], x.shape[2], channels])


def _is_pointwise(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.domain:
        return False
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 3 or weight.shape[2] != 1:
        return False
    wanted: dict[str, object] = {"group": 1, "strides": (1,), "pads": (0, 0), "dilations": (1,)}
    for name, plain in wanted.items():
        attribute = node.attributes.get(name)
        if attribute is None:
            continue
        value = attribute.as_int() if name == "group" else tuple(attribute.as_ints())
        if value != plain:
            return False
    padding = node.attributes.get("auto_pad")
    return padding is None or padding.as_string() in {"NOTSET", "VALID"}


def _is_transpose(node: ir.Node) -> bool:
    if node.op_type != "Transpose" or node.domain:
        return False
    perm = node.attributes.get("perm")
    return perm is not None and tuple(perm.as_ints()) == LAST_TWO_SWAPPED


def _store_transposed(value: ir.Value, transposes: list[ir.Node]) -> None:
    tensor = value.const_value
    if tensor is None:
        return
    array = np.ascontiguousarray(tensor.numpy().T)
    value.const_value = ir.tensor(array, name=value.name)
    value.shape = ir.Shape(array.shape)
    for node in transposes:
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        _remove(node)


def _adapt_readers(transposes: list[ir.Node]) -> bool:
    changed = False
    for transpose in transposes:
        (weight,) = transpose.inputs
        for matmul, index in list(transpose.outputs[0].uses()):
            x = matmul.inputs[0]
            rank = None if x is None or x.shape is None else len(x.shape)
            if matmul.op_type != "MatMul" or index != 1 or rank is None or rank < 2:
                continue
            _swap_sides(matmul, weight, x, rank)
            changed = True
        if not transpose.outputs[0].uses():
            _remove(transpose)
    return changed


def _swap_sides(matmul: ir.Node, weight: ir.Value | None, x: ir.Value | None, rank: int) -> None:
    """Rewrite MatMul(x, W^T) as Transpose(MatMul(W, Transpose(x))).

    A constant left operand is neither packed nor folded by ONNX Runtime, so the weight stays the
    only copy.
    """
    perm = [*range(rank - 2), rank - 1, rank - 2]
    name = matmul.name or "MatMul"
    turned = make_node("Transpose", [x], f"{name}.turn", {"perm": perm})
    product = make_node("MatMul", [weight, turned.outputs[0]], name)
    back = make_node("Transpose", [product.outputs[0]], f"{name}.back", {"perm": perm})
    replace_node(matmul, [turned, product, back])


def _remove(node: ir.Node) -> None:
    if node.graph is not None:
        node.graph.remove(node, safe=True)
