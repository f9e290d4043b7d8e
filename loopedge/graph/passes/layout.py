"""Store every linear weight once, as [in, out].

PyTorch keeps a linear weight as [out, in], so a captured graph reads it through a Transpose. ONNX
Runtime folds such a Transpose into a second copy (inside a Loop body into one more). This pass
folds it into the stored tensor; where another node reads the weight as it is (a tied embedding), the
stored layout stays and the MatMul adapts: x W^T = (W x^T)^T. A convolution of kernel one is a linear
over the channels, and is stored and computed as one.
"""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.lazy_weights import LazyWeight

__all__ = ["fold_weight_layouts", "turn_first_factors"]

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


def turn_first_factors(model: ir.Model) -> bool:
    """Write W x as (x^T W^T)^T where nothing reads W otherwise, in place: then W is stored as [in, out] too.

    Requires: the weights are initializers of the main graph; a product whose activation has no known rank is left
    alone.

    Ensures: no weight stands in two layouts; the head of a tied table stays as `fold_weight_layouts` leaves it.

    Returns:
        Whether anything changed.
    """
    changed = False
    for value in list(model.graph.initializers.values()):
        tensor, readers = value.const_value, value.uses()
        if tensor is None or len(tensor.shape) != 2 or not readers or value.is_graph_output():
            continue
        if not all(index == 0 and _reads_turned(node) for node, index in readers):
            continue
        array = np.ascontiguousarray(tensor.numpy().T)
        value.const_value, value.shape = ir.tensor(array, name=value.name), ir.Shape(array.shape)
        for node, _ in list(readers):
            x = node.inputs[1]
            rank = len(x.shape) if x is not None and x.shape is not None else 2
            _swap_sides(node, value, x, rank, first=False)
        changed = True
    return changed


def _reads_turned(node: ir.Node) -> bool:
    x = node.inputs[1] if node.op_type == "MatMul" and not node.domain else None
    return x is not None and x.const_value is None and x.shape is not None and len(x.shape) > 1


def _split_gemms(model: ir.Model) -> bool:
    """Write each Gemm with a stored weight as MatMul and Add, with what turns and scales them.

    A linear on two-dimensional inputs is captured as a Gemm, one on three as a MatMul; afterwards
    every linear is a MatMul.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Gemm" or node.domain or node.graph is None:
            continue
        if any(value is not None and _is_stored(value) for value in node.inputs[:2]):
            replace_node(node, _without_gemm(node, model.graph))
            changed = True
    return changed


def _without_gemm(node: ir.Node, graph: ir.Graph) -> list[ir.Node]:
    """Return alpha A B + beta C as nodes of their own; factors of one and what does not turn leave none."""
    name, new = node.name or "Gemm", list[ir.Node]()

    def then(
        op_type: str, inputs: list[ir.Value | None], part: str, **attributes: object
    ) -> ir.Value:
        new.append(make_node(op_type, inputs, part, attributes))
        return new[-1].outputs[0]

    def scaled(value: ir.Value | None, factor: str, part: str) -> ir.Value | None:
        by = node.attributes.get_float(factor, 1.0)
        if value is None or by == 1:
            return value
        weight = next(each for each in node.inputs[:2] if each is not None and each.dtype)
        number = np.array(by, weight.dtype.numpy() if weight.dtype else np.float32)
        return then("Mul", [value, add_initializer(graph, f"{name}.{factor}", number)], part)

    factors: list[ir.Value | None] = []
    for value, side in zip(node.inputs[:2], ("A", "B"), strict=True):
        turned = bool(node.attributes.get_int(f"trans{side}", 0))
        part = f"{name}.weight" if value is not None and _is_stored(value) else f"{name}.turn"
        factors.append(then("Transpose", [value], part, perm=[1, 0]) if turned else value)
    product = scaled(then("MatMul", factors, name), "alpha", f"{name}.scaled")
    bias = scaled(node.inputs[2] if len(node.inputs) > 2 else None, "beta", f"{name}.scaled_bias")
    if bias is not None:
        then("Add", [product, bias], f"{name}.bias")
    return new


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None


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
    value.const_value = turned = _transposed(tensor)
    value.shape = ir.Shape([int(size) for size in turned.shape])  # type: ignore[arg-type]
    for node in transposes:
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        _remove(node)


def _transposed(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if isinstance(tensor, LazyWeight):
        return tensor.turned()
    return ir.tensor(np.ascontiguousarray(tensor.numpy().T), name=tensor.name)


def _adapt_readers(transposes: list[ir.Node]) -> bool:
    changed = False
    for transpose in transposes:
        (weight,) = transpose.inputs
        for matmul, index in list(transpose.outputs[0].uses()):
            x = matmul.inputs[0]
            rank = None if x is None or x.shape is None else len(x.shape)
            if matmul.op_type != "MatMul" or index != 1 or rank is None or rank < 2:
                continue
            _swap_sides(matmul, weight, x, rank, first=True)
            changed = True
        if not transpose.outputs[0].uses():
            _remove(transpose)
    return changed


def _swap_sides(
    matmul: ir.Node, weight: ir.Value | None, x: ir.Value | None, rank: int, *, first: bool
) -> None:
    """Rewrite a product as the turned product of its turned factors: of W and the turned x, in one order or the other.

    MatMul(x, W^T) becomes Transpose(MatMul(W, Transpose(x))). A constant left operand is neither packed nor folded
    by ONNX Runtime, so the weight stays the only copy. MatMul(W^T, x) becomes Transpose(MatMul(Transpose(x), W)).
    """
    perm = [*range(rank - 2), rank - 1, rank - 2]
    name = matmul.name or "MatMul"
    turned = make_node("Transpose", [x], f"{name}.turn", {"perm": perm})
    factors = [weight, turned.outputs[0]] if first else [turned.outputs[0], weight]
    product = make_node("MatMul", factors, name)
    back = make_node("Transpose", [product.outputs[0]], f"{name}.back", {"perm": perm})
    replace_node(matmul, [turned, product, back])


def _remove(node: ir.Node) -> None:
    if node.graph is not None:
        node.graph.remove(node, safe=True)
