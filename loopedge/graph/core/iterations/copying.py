"""Copy the nodes of one iteration out of the body of a Loop."""

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from loopedge.errors import InputError
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.editing import add_initializer, make_node

__all__ = [
    "bodies_of",
    "copy_iteration",
    "dismantle",
    "forget_sizes",
    "share_constants",
    "with_inner",
]


def copy_iteration(
    body: ir.Graph,
    prefix: str,
    inputs: Sequence[ir.Value | None],
    *,
    names: Sequence[str] = (CORE_NAME,),
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Copy the nodes of one iteration out of a Loop body.

    Requires: `share_constants`.

    Args:
        body: Of the Loop. Not modified.
        prefix: Of the names of nodes and values.
        inputs: The number of the iteration, the condition, the states before it.
        names: Of the Loop: with a slash they are dropped in front of the names of what the body holds.

    Returns:
        The nodes, in no graph yet and without notes of an exporter, and behind the condition the outputs of the body: the states after the iteration,
        then one entry of each stack.

    Raises:
        InputError: A state is not given.
    """
    step = body.clone(allow_outer_scope_values=True)
    outputs = list(step.outputs[1:])
    step.outputs.clear()
    for value, source in zip(list(step.inputs), inputs, strict=True):
        if source is None:
            raise InputError("the Loop carries an optional state that is not given")
        ir.convenience.replace_all_uses_with(value, source)
        outputs = [source if output is value else output for output in outputs]
    step.inputs.clear()
    nodes = list(step)
    step.remove(nodes)
    for node in with_inner(nodes):
        node.metadata_props.clear()  # exporters note there where the code stands: once per iteration
        node.doc_string = None
        node.name = _named(node.name or node.op_type, prefix, names)
        for output in node.outputs:
            if output.name != "":  # an output that is left out
                output.name = _named(output.name or f"{node.name}.output", prefix, names)
    return nodes, outputs


def _named(name: str, prefix: str, names: Sequence[str]) -> str:
    for loop in names:
        if name.startswith(f"{loop}/"):
            return prefix + name.removeprefix(f"{loop}/")
    return prefix + name


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that a node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def with_inner(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Yield nodes, and behind each those of the bodies that it holds: of Loops inside the core."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from with_inner(body)


def share_constants(graph: ir.Graph, body: ir.Graph) -> None:
    """Move what a body stores, and the bodies inside it, to the graph around, in place: a copy is then shared.

    Ensures: no output of these bodies is a value that another graph holds; a Constant has become an initializer.

    Args:
        graph: The main graph.
        body: Of a Loop.
    """
    for part in (body, *body.subgraphs()):
        made = {output for node in part for output in node.outputs if node.op_type != "Constant"}
        for place, output in enumerate(part.outputs):
            if output not in made and output not in part.inputs:
                copy = make_node("Identity", [output], f"{output.name}.copy")
                copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
                part.append(copy)
                part.outputs[place] = copy.outputs[0]
        for name, value in list(part.initializers.items()):
            if value.const_value is not None and value not in part.inputs:
                shared = add_initializer(graph, name, value.const_value)
                ir.convenience.replace_all_uses_with(value, shared)
                del part.initializers[name]
        for node in list(part):
            if node.op_type == "Constant" and not node.domain:
                _lift(graph, part, node)


def _lift(graph: ir.Graph, part: ir.Graph, node: ir.Node) -> None:
    """Make a Constant an initializer of the main graph, where it is a tensor of numbers."""
    output = node.outputs[0]
    tensor = ir.convenience.get_const_tensor(output) if len(node.attributes) == 1 else None
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return
    shared = add_initializer(graph, output.name or node.name or node.op_type, tensor)
    ir.convenience.replace_all_uses_with(output, shared)
    part.remove(node, safe=True)


def forget_sizes(loop: LoopView, known: Iterable[str]) -> None:
    """Drop the names of axes that a body alone knows, in place.

    In a body a name stands for the size in one iteration. Written out, a state that grows would have one name for
    several sizes, and ONNX Runtime lends the memory of one to the other.

    Args:
        loop: Its body is changed.
        known: Names of axes of the graph around. Those of a state's axis that is not called so before the Loop, before
            an iteration and after it are dropped too.
    """
    kept = set(known)
    for start, before, after in zip(loop.initial, loop.before, loop.after, strict=True):
        shapes = [_axes(value) for value in (start, before, after)]
        for axes in zip(*shapes, strict=False):
            if len(set(axes)) > 1:
                kept -= {axis for axis in axes if isinstance(axis, str)}
        if len({len(shape) for shape in shapes}) > 1:
            kept -= {axis for shape in shapes for axis in shape if isinstance(axis, str)}
    for node in with_inner(loop.body):
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape(
                    [
                        axis if isinstance(axis, int) or axis in kept else None
                        for axis in _axes(value)
                    ]
                )


def _axes(value: ir.Value | None) -> list[int | str | None]:
    shape = () if value is None or value.shape is None else value.shape
    return [axis if isinstance(axis, int) else axis.value for axis in shape]


def dismantle(node: ir.Node) -> None:
    """Empty the bodies of a node that stands in no graph: they would count as readers of the weights."""
    for each in reversed([*with_inner([node])]):
        for body in bodies_of(each):
            body.outputs.clear()
            body.remove(list(body), safe=True)
