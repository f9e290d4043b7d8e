"""What bodies read from the graph around them, where ONNX Runtime cannot bear it.

Its optimizer QDQPropagationTransformer moves a DequantizeLinear behind nodes that keep values as they are, as Reshape and
Transpose. Where a body reads what such a node gives, it writes past the inputs of the node that has the body, and the
process is aborted. Measured with onnxruntime 1.32, from opset 10 to 26.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.operators import Fact, having

__all__ = ["CapturedRounding", "bodies_of", "captured_roundings"]

MOVED_BEHIND = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool"}
"""Nodes that the optimizer moves a DequantizeLinear behind; MaxPool from opset 12 on."""

MAX_POOL_OPSET = 12
DEQUANTIZE = "DequantizeLinear"
DEQUANTIZE_DOMAINS = {"", "com.microsoft"}

REMOVED_UNREAD = {"Identity", "Cast", "Dropout"}
"""Nodes that are removed, with what they read, where nothing reads them; others stay."""

NEUTRAL = {"Add": (0, (0, 1)), "Sub": (0, (1,)), "Mul": (1, (0, 1)), "Div": (1, (1,))}
"""By operator: the number that changes nothing, and the inputs where it may stand. Such nodes are removed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRounding:
    """A value that a body reads from outside, and that ONNX Runtime aborts at.

    Attributes:
        value: Its name.
        reader: The node with the body, by name.
        operator: What gives the value: Reshape, Transpose and the like.
        dequantizer: The DequantizeLinear before it, by name.
    """

    value: str
    reader: str
    operator: str
    dequantizer: str

    @property
    def sentence(self) -> str:
        """What is wrong, in one line."""
        return (
            f"{self.reader} reads {self.value!r} from outside its body, which {self.operator} makes of what "
            f"{self.dequantizer} dequantizes: ONNX Runtime aborts when it loads that"
        )


def captured_roundings(model: ir.Model) -> list[CapturedRounding]:
    """List the values that ONNX Runtime aborts at when it loads a graph, in the order of the graph.

    They are read by a body, of a Loop, Scan or If, and come from a DequantizeLinear of one constant scale through nodes of
    `MOVED_BEHIND` alone, of which none is read by a QuantizeLinear. What is computed of constants alone is folded before.

    Args:
        model: Any graph. Not modified.
    """
    functions = [function.graph for function in model.functions.values()]
    if not any(
        node.op_type == DEQUANTIZE
        for graph in [model.graph, *functions]
        for node in graph.all_nodes()
    ):
        return []
    if functions:
        model = model.clone()
        common.InlinePass()(model)
    return list(_Search(model).found())


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that stand in a node."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


class _Search:
    def __init__(self, model: ir.Model) -> None:
        self._graphs = [model.graph, *model.graph.subgraphs()]
        opset = model.opset_imports.get("", 0)
        self._moved = MOVED_BEHIND - (set() if opset >= MAX_POOL_OPSET else {"MaxPool"})
        self._constants: dict[ir.Value, bool] | None = None

    def found(self) -> Iterator[CapturedRounding]:
        for graph in self._graphs:
            for node in self._standing(graph):
                for value in _captured(node, graph):
                    dequantizer = self._dequantizer(value)
                    if dequantizer is not None:
                        yield CapturedRounding(
                            value=value.name or "",
                            reader=node.name or node.op_type,
                            operator=_maker(value).op_type,
                            dequantizer=dequantizer.name or DEQUANTIZE,
                        )

    def _standing(self, graph: ir.Graph) -> Iterator[ir.Node]:
        """Yield the nodes of a graph; an If whose condition is constant gives its place to its branches."""
        for node in graph:
            if node.op_type == "If" and not node.domain and self._is_constant(node.inputs[0]):
                for branch in bodies_of(node):
                    yield from self._standing(branch)
            else:
                yield node

    def _dequantizer(self, value: ir.Value | None) -> ir.Node | None:
        """Return the DequantizeLinear that would be moved behind what makes a captured value."""
        moved = False
        graph = None if value is None else value.graph
        while value is not None:
            node = value.producer()
            if node is None or node.graph is not graph:
                return None
            if node.op_type == DEQUANTIZE and node.domain in DEQUANTIZE_DOMAINS:
                fits = moved and self._is_moved(node)
                return node if fits else None
            through = _passed_through(node)
            if through is None:
                if node.op_type not in self._moved or node.domain or value is not node.outputs[0]:
                    return None
                if _is_quantized(value):
                    return None
                moved, through = True, node.inputs[0]
            value = through
        return None

    def _is_moved(self, node: ir.Node) -> bool:
        """Tell whether a DequantizeLinear has one constant scale, and is not folded itself."""
        values, scale, *more = node.inputs
        points = [point for point in more if point is not None]
        return not self._is_constant(values) and all(
            _is_single(each) and self._is_constant(each) for each in [scale, *points]
        )

    def _is_constant(self, value: ir.Value | None) -> bool:
        """Tell whether a value is stored, or computed of stored ones alone."""
        if self._constants is None:
            self._constants = {}
            _add_constants(self._graphs[0], self._constants)
        return value is None or value in self._constants


def _add_constants(graph: ir.Graph, constants: dict[ir.Value, bool]) -> None:
    """Add what is folded in a graph and the bodies in it: what is stored, or computed of it alone.

    Each with whether it was dequantized on the way: what such a value is quantized to again is not folded.
    """
    for value in graph.initializers.values():
        if not value.is_graph_input():
            constants[value] = False
    for node in graph:
        bodies = list(bodies_of(node))
        for body in bodies:
            _add_constants(body, constants)
        read = [value for value in node.inputs if value is not None]
        if bodies or node.op_type in having(Fact.RANDOM) or any(v not in constants for v in read):
            continue
        rounded = any(constants[value] for value in read)
        if not (rounded and node.op_type == "QuantizeLinear"):
            rounded = rounded or node.op_type == DEQUANTIZE
            constants.update(dict.fromkeys(node.outputs, rounded))


def _captured(node: ir.Node, graph: ir.Graph) -> dict[ir.Value, None]:
    """Return what the bodies of a node read of the graph that it stands in, each value once."""
    found: dict[ir.Value, None] = {}
    for body in bodies_of(node):
        for inside in body.all_nodes():
            if (
                inside.op_type in REMOVED_UNREAD
                and _passed_through(inside) is not None
                and not inside.outputs[0].consumers()
            ):
                continue
            for value in inside.inputs:
                maker = None if value is None else value.producer()
                if value is not None and maker is not None and maker.graph is graph:
                    found[value] = None
    return found


def _maker(value: ir.Value) -> ir.Node:
    """Return the node that gives a value, past those that are removed."""
    while True:
        node = value.producer()
        assert node is not None
        through = _passed_through(node)
        if through is None or through.producer() is None:
            return node
        value = through


def _is_single(value: ir.Value | None) -> bool:
    """Tell whether a value is one number, as far as its shape is known: with no axis, or one of size 1."""
    if value is None:
        return False
    shape = value.shape if value.const_value is None else value.const_value.shape
    return shape is None or list(shape) in ([], [1])


def _is_quantized(value: ir.Value) -> bool:
    """Tell whether a QuantizeLinear of the same graph reads a value: the optimizer stops there."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        for user in value.consumers():
            if user.graph is not value.graph:
                continue
            if user.op_type == "QuantizeLinear" and user.domain in DEQUANTIZE_DOMAINS:
                return True
            if _passed_through(user) is value:
                waiting.append(user.outputs[0])
    return False


def _passed_through(node: ir.Node) -> ir.Value | None:
    """Return the input that a node gives unchanged, where ONNX Runtime removes such a node before; else None."""
    if node.domain or not node.outputs or not node.inputs or node.inputs[0] is None:
        return None
    if node.outputs[0].is_graph_output():  # its name has to stay
        return None
    first = node.inputs[0]
    if node.op_type in {"Identity", "Dropout"}:
        return first
    if node.op_type == "Cast":
        return first if _type_of(first) == _type_cast_to(node) else None
    if node.op_type == "Expand":
        return first if _is_filled(node.inputs[1], 1, single=False) else None
    if node.op_type in NEUTRAL:
        number, places = NEUTRAL[node.op_type]
        for place in places:
            if _is_filled(node.inputs[place], number, single=True):
                return node.inputs[1 - place]
    return None


def _type_of(value: ir.Value | None) -> ir.DataType | None:
    """Return the type of a value; where the file does not say, that of the scale which it was dequantized by."""
    while value is not None and value.dtype is None:
        node = value.producer()
        if node is None or not node.inputs:
            return None
        value = node.inputs[1 if node.op_type == DEQUANTIZE else 0]
    return None if value is None else value.dtype


def _type_cast_to(node: ir.Node) -> ir.DataType | None:
    attribute = node.attributes.get("to")
    return None if attribute is None or attribute.is_ref() else ir.DataType(attribute.as_int())


def _is_filled(value: ir.Value | None, number: int, *, single: bool) -> bool:
    """Tell whether a value is stored and holds one number alone; ``single``: once."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > 8 or (single and tensor.size != 1):
        return False
    return bool((tensor.numpy() == number).all())
