"""Count the products that read weights, with `onnx` alone: another program than the one that is tested.

It asks of each operand which stored tensors and which inputs can be reached from it against the arrows; a body hands what
it gives back to what it takes. loopedge goes the other way, along the arrows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

PLACES = {
    **dict.fromkeys(
        ("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat"), (1, 0)
    ),
    **dict.fromkeys(
        ("DynamicQuantizeMatMul", "MatMulNBits", "Conv", "ConvTranspose", "ConvInteger"), (1,)
    ),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2)),
    "QLinearMatMul": (3, 0),
    "QLinearConv": (3,),
    "Attention": (0, 1, 2),
    "Einsum": (0, 1, 2),
}
MATRIX = {name for name in PLACES if "MatMul" in name or name == "Gemm"}
FLOATS: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.BFLOAT16: 2,
}
INTEGERS = {TensorProto.INT8, TensorProto.UINT8}

Key = tuple[str, str]
"""A scope, as ``/Loop_0/body``, and the name of a value in it."""


@dataclass
class Walked:
    """``quantized`` of ``total`` products read integers, of ``total_bytes`` of their weights ``bytes`` are such."""

    quantized: int = 0
    total: int = 0
    bytes: int = 0
    total_bytes: int = 0


@dataclass
class Cone:
    """What can be reached from a value."""

    weights: set[Key] = field(default_factory=set)
    inputs: bool = False
    sizes: bool = False


def walk(path: str | Path) -> Walked:
    return _Walker(onnx.load(str(path))).count()


class _Walker:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.stored: dict[Key, TensorProto] = {}
        self.edges: dict[Key, list[Key]] = {}
        self.makers: dict[Key, tuple[NodeProto, str]] = {}
        self.inputs: set[Key] = set()
        self.free: set[Key] = set()
        self.products: list[tuple[NodeProto, str]] = []
        self.parents: dict[str, str] = {}
        self._busy: set[Key] = set()
        self._fed: set[Key] = set()  # what is known to hang on an input: each is asked once
        self._graph(model.graph, "")
        self.inputs |= {("", v.name) for v in model.graph.input} - set(self.stored)

    def count(self) -> Walked:
        found, read = Walked(), set[Key]()
        for node, scope in self.products:
            if node.name.startswith("core.last/"):
                continue
            weights = self._weights_of(node, scope)
            if not weights:
                continue
            sizes = {True: 0, False: 0}
            for key in weights:
                sizes[self.stored[key].data_type in INTEGERS] += _elements(self.stored[key])
            found.total += 1
            found.quantized += sizes[True] > 0 and sizes[True] >= 2 * sizes[False]
            read |= weights
        for key in read:
            tensor = self.stored[key]
            integer = tensor.data_type in INTEGERS
            size = _elements(tensor) * (1 if integer else FLOATS[tensor.data_type])
            found.total_bytes += size
            found.bytes += size if integer else 0
        return found

    def _weights_of(self, node: NodeProto, scope: str) -> set[Key]:
        names = [node.input[place] for place in PLACES[node.op_type] if place < len(node.input)]
        cones = [self._cone(self._key(scope, name)) for name in names if name]
        cones = [cone for cone in cones if cone.weights and not cone.inputs]
        if node.op_type in MATRIX:
            cones = cones[:1]
        return set().union(*(cone.weights for cone in cones))

    def _cone(self, start: Key) -> Cone:
        cone, waiting, seen = Cone(), [start], set[Key]()
        if start in self._fed:
            return Cone(inputs=True)
        while waiting and not cone.inputs:
            key = waiting.pop()
            if key in seen:
                continue
            seen.add(key)
            if key in self._fed:
                cone.inputs = True
                continue
            if key in self.free:
                continue
            if key in self.inputs:
                cone.inputs = True
            elif key in self.stored:
                if _is_weight(self.stored[key]):
                    cone.weights.add(key)
            elif key in self.makers:
                self._through(key, cone, waiting)
            else:
                waiting += self.edges.get(key, [])
        if cone.inputs:
            self._fed.add(start)
        return cone

    def _through(self, key: Key, cone: Cone, waiting: list[Key]) -> None:
        node, scope = self.makers[key]
        sources = [self._key(scope, name) for name in node.input if name]
        if node.op_type in {"Shape", "Size"}:
            shaped = self._cone(sources[0])
            cone.sizes |= shaped.inputs or shaped.sizes
        elif node.op_type in PLACES:
            if key in self._busy:
                return
            self._busy.add(key)
            behind = [self._cone(source) for source in sources]
            self._busy.discard(key)
            if any(each.inputs or each.sizes for each in behind):
                cone.inputs = True
                self._fed.add(key)
            waiting += sources
        elif node.op_type in {"DequantizeLinear", "QuantizeLinear"} or (
            node.op_type == "Gather" and len(self.stored.get(sources[0], TensorProto()).dims) > 2
        ):
            waiting += sources[:1]
        else:
            waiting += sources

    def _key(self, scope: str, name: str) -> Key:
        """Find the scope that a name means: the innermost that holds it."""
        places = (self.stored, self.edges, self.makers, self.inputs, self.free)
        while scope and not any((scope, name) in place for place in places):
            scope = self.parents[scope]
        return scope, name

    def _graph(self, graph: GraphProto, scope: str) -> None:
        for tensor in graph.initializer:
            self.stored[scope, tensor.name] = tensor
        self._nodes(graph.node, scope)

    def _nodes(self, nodes: Iterator[NodeProto], scope: str) -> None:
        for number, node in enumerate(nodes):
            inner = f"{scope}/{number}"
            if (node.domain, node.op_type) in self.functions:
                self._call(node, scope, inner)
            elif node.op_type in {"Loop", "Scan", "If"}:
                self._bodies(node, scope, inner)
            elif node.op_type == "Constant":
                self.stored[scope, node.output[0]] = _constant(node)
            else:
                self.makers |= {(scope, name): (node, scope) for name in node.output if name}
                if node.op_type in PLACES:
                    self.products.append((node, scope))

    def _call(self, node: NodeProto, scope: str, inner: str) -> None:
        function = self.functions[node.domain, node.op_type]
        self.parents[inner] = scope
        for outside, inside in zip(node.input, function.input, strict=False):
            self.edges[inner, inside] = [self._key(scope, outside)]
        self._nodes(function.node, inner)
        for outside, inside in zip(node.output, function.output, strict=False):
            self.edges[scope, outside] = [(inner, inside)]

    def _bodies(self, node: NodeProto, scope: str, inner: str) -> None:
        for attribute in node.attribute:
            if attribute.type != AttributeProto.GRAPH:
                continue
            body, place = attribute.g, f"{inner}.{attribute.name}"
            self.parents[place] = scope
            given = [self._key(scope, name) for name in node.input]
            ends = [value.name for value in body.output]
            states = 0
            if node.op_type == "Loop":
                states, given, ends = len(node.input) - 2, given[2:], ends[1:]
                self.free.add((place, body.input[0].name))
                self.inputs.add((place, body.input[1].name))
            elif node.op_type == "Scan":
                states = len(node.input) - next(
                    a.i for a in node.attribute if a.name == "num_scan_inputs"
                )
            taken = (
                [value.name for value in body.input][-len(given) :] if node.op_type != "If" else []
            )
            for name, source in zip(taken, given, strict=False):
                self.edges[place, name] = [source]
            self._graph(body, place)
            for name, end in zip(taken[:states], ends, strict=False):
                self.edges[place, name].append(self._key(place, end))
            for number, (name, end) in enumerate(zip(node.output, ends, strict=False)):
                first = given[number : number + 1] if number < states else []
                self.edges.setdefault((scope, name), []).extend([self._key(place, end), *first])


def _constant(node: NodeProto) -> TensorProto:
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor: TensorProto = attribute.t
        return tensor
    kind = TensorProto.FLOAT if "float" in attribute.name else TensorProto.INT64
    value = onnx.helper.get_attribute_value(attribute)
    values = list(value) if isinstance(value, list) else [value]
    return onnx.helper.make_tensor(
        "constant", kind, [len(values)] if isinstance(value, list) else [], values
    )


def _is_weight(tensor: TensorProto) -> bool:
    known = tensor.data_type in FLOATS or tensor.data_type in INTEGERS
    return known and (len(tensor.dims) > 1 or _elements(tensor) > 1)


def _elements(tensor: TensorProto) -> int:
    return int(numpy_helper.to_array(tensor).size)
