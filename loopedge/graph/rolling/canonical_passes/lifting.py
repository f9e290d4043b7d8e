"""Constants wherever they stand, as initializers of the main graph; branches that are always taken, as its nodes."""

import numpy as np
import onnx_ir as ir

from loopedge.graph.editing import initializer, make_node
from loopedge.graph.naming import take_name
from loopedge.graph.rolling.canonical_passes.content import is_constant

__all__ = ["inline_constant_branches", "lift_constants"]


class _Names:
    """The names of the values of a model and of its bodies, and new ones beside them."""

    def __init__(self, model: ir.Model) -> None:
        self.counts: dict[str | None, int] = {}
        self.numbers: dict[str, int] = {}
        for graph in (model.graph, *model.graph.subgraphs()):
            values = (*graph.inputs, *graph.initializers.values())
            made = (output for node in graph for output in node.outputs)
            for value in dict.fromkeys((*values, *made)):
                self.counts[value.name] = self.counts.get(value.name, 0) + 1

    def alone(self, value: ir.Value) -> str:
        """Return a name that no other value of the model has: its own, or that with a number."""
        name = value.name or "constant"
        if self.counts.get(name, 0) <= 1:
            self.counts[name] = 1
            return name
        self.counts[name] -= 1
        free = name
        while free in self.counts:
            self.numbers[name] = self.numbers.get(name, 0) + 1
            free = f"{name}.{self.numbers[name]}"
        self.counts[free] = 1
        return free


def lift_constants(model: ir.Model) -> bool:
    """Let constants and initializers of bodies be initializers of the main graph, in place.

    Requires: nothing.

    Ensures: what stays a Constant is sparse, or an output of its graph.

    Returns:
        Whether anything changed.
    """
    names, changed = _Names(model), False
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            tensor = _tensor(node)
            old = node.outputs[0] if node.outputs else None
            if tensor is None or old is None or old.is_graph_output():
                continue
            made = initializer(names.alone(old), tensor)
            graph.remove(node)
            model.graph.register_initializer(made)
            ir.convenience.replace_all_uses_with(old, made)
            changed = True
        if graph is not model.graph:
            changed |= _lift_stored(model.graph, graph, names)
    return changed


def _lift_stored(main: ir.Graph, body: ir.Graph, names: _Names) -> bool:
    changed = False
    for name, value in list(body.initializers.items()):
        if value.is_graph_input() or value.is_graph_output():
            continue
        del body.initializers[name]
        value.name = names.alone(value)
        main.register_initializer(value)
        changed = True
    return changed


def _tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return what a Constant holds; None of another node, and of a sparse one."""
    if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_int":
            return ir.Tensor(np.array(attribute.as_int(), np.int64))
        case "value_ints":
            return ir.Tensor(np.array(attribute.as_ints(), np.int64))
        case "value_float":
            return ir.Tensor(np.array(attribute.as_float(), np.float32))
        case "value_floats":
            return ir.Tensor(np.array(attribute.as_floats(), np.float32))
        case "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        case "value_strings":
            texts = [text.encode() for text in attribute.as_strings()]
            return ir.StringTensor(texts, shape=ir.Shape([len(texts)]))
    return None


def inline_constant_branches(model: ir.Model) -> bool:
    """Put the nodes of the branch that is taken in the place of each If whose condition is stored, in place.

    Requires: constants are initializers of the main graph.

    Ensures: the outputs of the graph keep their names.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        taken = _branch_taken(node)
        if taken is not None:
            _inline(model, node, taken)
            changed = True
    return changed


def _branch_taken(node: ir.Node) -> ir.Graph | None:
    if node.op_type != "If" or node.domain or not node.inputs or not is_constant(node.inputs[0]):
        return None
    condition = node.inputs[0]
    if condition is None or condition.const_value is None or condition.const_value.size != 1:
        return None
    chosen = bool(condition.const_value.numpy().reshape(-1)[0])
    return node.attributes["then_branch" if chosen else "else_branch"].as_graph()


def _inline(model: ir.Model, node: ir.Node, body: ir.Graph) -> None:
    graph, given = model.graph, list(body.outputs)
    body.outputs.clear()
    names = _Names(model)
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        value.name = names.alone(value)
        graph.register_initializer(value)
    for inner in list(body):
        body.remove(inner)
        graph.insert_before(node, inner)
    for old, new in zip(node.outputs, given, strict=True):
        if old.is_graph_output():
            copy = make_node("Identity", [new], f"{old.name}.copy")
            copy.outputs[0].type, copy.outputs[0].shape = old.type, old.shape
            graph.insert_before(node, copy)
            ir.convenience.replace_all_uses_with(old, copy.outputs[0], replace_graph_outputs=True)
            given_name, old.name = old.name, f"{old.name}.taken"
            take_name(copy.outputs[0], given_name)
        else:
            ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)
