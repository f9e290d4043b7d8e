"""Dynamic int8: activations are measured at run time, no data is needed.

Each linear becomes one ``com.microsoft.DynamicQuantizeMatMul``: it finds the range of its input,
rounds it to u8, multiplies with the s8 weight, and scales the result back to float.
"""

import onnx_ir as ir

from loopedge.graph.editing import add_initializer, make_node, replace_node
from loopedge.graph.weights import Linear, linears
from loopedge.quantizer.coverage import Coverage, Skipped
from loopedge.quantizer.weights import quantize_weight

__all__ = ["MICROSOFT", "quantize_dynamic"]

MICROSOFT = "com.microsoft"


def quantize_dynamic(model: ir.Model) -> Coverage:
    """Replace the linears of a graph, in place.

    Args:
        model: A float graph whose linears are MatMul with weights [in, out].

    Returns:
        What was replaced and what was not.

    Ensures: a replaced weight has one s8 copy under its name and one scale per output channel
    under ``<name>.scale``; its float values are gone.
    """
    coverage = Coverage()
    found = linears(model)
    reasons = {item.weight: _reason(item, found) for item in found}
    for weight in dict.fromkeys(item.weight for item in found):
        if reasons[weight] is None:
            _store_int8(weight)
    for item in found:
        reason, name = reasons[item.weight], item.node.name or item.weight.name or ""
        if reason is not None:
            coverage.skipped.append(Skipped(name=name, reason=reason))
            continue
        _replace(item)
        coverage.quantized.append(name)
    if coverage.quantized:
        model.graph.opset_imports[MICROSOFT] = 1
    return coverage


def _reason(item: Linear, found: list[Linear]) -> str | None:
    weight = item.weight
    readers = {linear.node for linear in found if linear.weight is weight}
    if any(linear.index != 1 for linear in found if linear.weight is weight):
        return f"{weight.name} is shared with the embedding, whose rows are read in float"
    others = [user.op_type for user in weight.consumers() if user not in readers]
    if others:
        return f"{weight.name} is also read by {others[0]}"
    if weight.dtype != ir.DataType.FLOAT:
        return f"{weight.name} is {weight.dtype}, not float32"
    if item.node.op_type != "MatMul":
        return f"{item.node.op_type} has no dynamic int8 form"
    return None


def _store_int8(weight: ir.Value) -> None:
    graph, name, tensor = weight.graph, weight.name or "", weight.const_value
    if graph is None or tensor is None:
        return
    values, scales = quantize_weight(tensor.numpy())
    weight.const_value = ir.tensor(values, name=name)
    weight.type = ir.TensorType(ir.DataType.INT8)
    add_initializer(graph, f"{name}.scale", scales)


def _replace(item: Linear) -> None:
    node, weight = item.node, item.weight
    if node.graph is None or weight.graph is None:
        return
    scale = weight.graph.initializers[f"{weight.name}.scale"]
    new = make_node(
        "DynamicQuantizeMatMul",
        [node.inputs[0], weight, scale],
        node.name or "DynamicQuantizeMatMul",
        domain=MICROSOFT,
    )
    replace_node(node, [new])
