"""Hold an ONNX file to the rules that all that reads it relies on, before onnx_ir makes a graph of it.

The file comes from anybody: a bit may be flipped, and a few bytes may declare what no memory holds. What is checked: text is
UTF-8; tensors hold what they declare and stand where they may; a node reads what was made before it, and has the inputs
and attributes that its operator's schema asks for; bodies take what their node gives; local functions do not
call themselves, and stay small when they are written out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto

from loopedge.artifact.reading.tensor_check import External, check_tensor
from loopedge.errors import InputError

__all__ = [
    "MOST_EXPANDED_BYTES",
    "MOST_EXPANDED_NODES",
    "body_fits",
    "check_proto",
    "operator_problem",
]

MOST_EXPANDED_NODES = 100_000
"""Nodes that local functions may become where they are called."""
MOST_EXPANDED_BYTES = 256 << 20
"""Bytes of constants that they may become, or `EXPANSION` times the file where that is more."""
EXPANSION = 4

ONNX_DOMAINS = {"", "ai.onnx"}
VALUE_FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
"""Kinds of attributes, and the field that holds the value; sparse tensors are not read."""
SINGLE = {AttributeProto.TENSOR, AttributeProto.GRAPH, AttributeProto.TYPE_PROTO}

FunctionKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What a graph becomes when the functions that it calls are written out."""

    nodes: int = 0
    bytes: int = 0

    def __add__(self, other: "_Cost") -> "_Cost":
        return _Cost(nodes=self.nodes + other.nodes, bytes=self.bytes + other.bytes)


def check_proto(proto: onnx.ModelProto, source: Path) -> dict[str, External]:
    """Refuse a model that breaks the rules.

    Args:
        proto: As it was parsed.
        source: The file, for messages; external data stands beside it.

    Returns:
        Where tensors stand that are outside the file, by location.

    Raises:
        InputError: With the first rule that it breaks.
    """
    _check_text(proto, source)
    check = _Check(source, {item.domain: item.version for item in proto.opset_import})
    for function in proto.functions:
        check.functions[(function.domain, function.name, function.overload)] = function
    for function in proto.functions:
        check.function(function)
    check.graph(proto.graph, [], main=True)
    check.expansion(proto.graph)
    return check.external


def operator_problem(
    operator: str,
    opset: int,
    inputs: Sequence[str | None],
    outputs: int,
    kinds: Mapping[str, int | None],
) -> str | None:
    """Say what keeps a node of ONNX's own operators from its schema; None where nothing does, or there is none.

    Args:
        operator: Its name.
        opset: Of the model.
        inputs: Names, empty or None where an input is left out.
        outputs: How many there are.
        kinds: Types of its attributes by name, as onnx numbers them; None where a function gives it.
    """
    schema = _schema(operator, opset)
    if schema is None:
        return None
    for what, count, least, most in (
        ("inputs", len(inputs), schema.min_input, schema.max_input),
        ("outputs", outputs, schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            return f"has {count} {what}, its operator {least} to {most}"
    for place, formal in enumerate(schema.inputs[: schema.min_input]):
        if formal.option == onnx.defs.OpSchema.FormalParameterOption.Single and not inputs[place]:
            return f"lacks its input {formal.name}"
    for name, wanted in schema.attributes.items():
        if name not in kinds:
            if wanted.required:
                return f"lacks its attribute {name}"
        elif kinds[name] is not None and kinds[name] != int(wanted.type):
            return f"has the attribute {name} of another type"
    return None


def body_fits(operator: str, gives: int, takes: int, made: int, handed: int) -> bool:
    """Tell whether a body takes what its node gives, and makes what its node hands on.

    Args:
        operator: Of the node.
        gives: Inputs of the node.
        takes: Inputs of the body.
        made: Outputs of the body.
        handed: Outputs of the node.
    """
    if operator == "Loop":
        return gives == takes and takes >= 2 and made >= takes - 1 and handed == made - 1
    if operator == "If":
        return takes == 0 and made == handed
    return operator != "Scan" or made == handed


def _check_text(message: Any, source: Path) -> None:
    """Refuse text that is not UTF-8: protobuf hands such text on as bytes."""
    for described, value in message.ListFields():
        if described.type == described.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) for text in texts):
                raise InputError(f"{source} is damaged: its {described.name} is not UTF-8 text")
        elif described.type == described.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _check_text(inner, source)


@dataclass(slots=True)
class _Check:
    source: Path
    opsets: Mapping[str, int]
    functions: dict[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)
    external: dict[str, External] = field(default_factory=dict)

    def refuse(self, reason: str) -> InputError:
        """Return the error of a broken rule."""
        return InputError(f"{self.source} is not a valid ONNX model: {reason}"[:300])

    def function(self, function: onnx.FunctionProto) -> None:
        """Check a local function, whose nodes see its inputs alone."""
        names = set(function.input)
        self._nodes(function.node, [names], in_function=True)
        self._outputs(function.output, names, function.name)

    def graph(
        self,
        graph: onnx.GraphProto,
        outer: list[set[str]],
        *,
        main: bool,
        in_function: bool = False,
    ) -> None:
        """Check a graph; ``outer`` holds the names that graphs around it have made so far."""
        if graph.sparse_initializer:
            raise self.refuse("it holds sparse initializers, which are not read")
        given = [value.name for value in graph.input]
        if len(set(given)) < len(given) or not all(given):
            raise self.refuse("two inputs have one name, or one has none")
        for tensor in graph.initializer:
            self._tensor(tensor)
        stored = [tensor.name for tensor in graph.initializer]
        if len(set(stored)) < len(stored) or not all(stored):
            raise self.refuse("two initializers have one name, or one has none")
        names = {*given, *stored}
        self._nodes(graph.node, [*outer, names], in_function=in_function)
        made = names if main else set().union(names, *outer)
        self._outputs([value.name for value in graph.output], made, graph.name)

    def _outputs(self, wanted: Iterable[str], made: set[str], name: str) -> None:
        for output in wanted:
            if output not in made:
                raise self.refuse(f"output {output!r} of {name or 'the graph'} is made by no node")

    def _nodes(
        self, nodes: Iterable[onnx.NodeProto], scopes: list[set[str]], *, in_function: bool
    ) -> None:
        names = scopes[-1]
        for node in nodes:
            what = f"{node.op_type or 'a node'} {node.name or ''}".strip()
            for name in node.input:
                if name and not any(name in scope for scope in scopes):
                    raise self.refuse(f"{what} reads {name!r}, which nothing before it makes")
            self._operator(node, what)
            self._attributes(node, what, scopes, in_function=in_function)
            for name in node.output:
                if name in names:
                    raise self.refuse(f"{what} makes {name!r}, which is there already")
                if name:
                    names.add(name)

    def _operator(self, node: onnx.NodeProto, what: str) -> None:
        if not node.op_type:
            raise self.refuse("a node has no operator")
        if node.domain not in ONNX_DOMAINS or self.functions.get(_key(node)) is not None:
            return
        kinds = {
            item.name: None if item.ref_attr_name else int(item.type) for item in node.attribute
        }
        opset = self.opsets.get("", self.opsets.get("ai.onnx", 0))
        problem = operator_problem(node.op_type, opset, node.input, len(node.output), kinds)
        if problem is not None:
            raise self.refuse(f"{what} {problem}")

    def _attributes(
        self,
        node: onnx.NodeProto,
        what: str,
        scopes: list[set[str]],
        *,
        in_function: bool,
    ) -> None:
        seen = set()
        for attribute in node.attribute:
            if not attribute.name or attribute.name in seen:
                raise self.refuse(f"{what} has two attributes of one name, or one without a name")
            seen.add(attribute.name)
            if attribute.ref_attr_name:
                if not in_function:
                    raise self.refuse(
                        f"{what} refers to an attribute of a function, and is in none"
                    )
                continue
            kind = attribute.type
            if kind not in VALUE_FIELDS or (
                kind in SINGLE and not attribute.HasField(VALUE_FIELDS[kind])
            ):
                raise self.refuse(f"{what} has the attribute {attribute.name} of an unknown type")
            for tensor in _tensors(attribute):
                self._tensor(tensor)
            for body in _graphs(attribute):
                self._body(node, body, attribute.name, what)
                self.graph(body, scopes, main=False, in_function=in_function)

    def _body(self, node: onnx.NodeProto, body: onnx.GraphProto, name: str, what: str) -> None:
        """Hold a body to what its node gives it and takes from it."""
        if node.domain not in ONNX_DOMAINS:
            return
        sizes = (len(node.input), len(body.input), len(body.output), len(node.output))
        if not body_fits(node.op_type, *sizes):
            raise self.refuse(
                f"{what} has {sizes[0]} inputs and {sizes[3]} outputs, its {name} {sizes[1]} and {sizes[2]}"
            )

    def _tensor(self, tensor: onnx.TensorProto) -> None:
        found = check_tensor(tensor, self.source)
        if found is not None:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            self.external[entries["location"]] = found

    def expansion(self, graph: onnx.GraphProto) -> None:
        """Refuse functions that call themselves, or become too large where they are written out."""
        known: dict[FunctionKey, _Cost] = {}
        for key in self.functions:
            self._measure(key, known)
        called = self._cost(graph.node, known, own=False)
        allowed = max(MOST_EXPANDED_BYTES, EXPANSION * self.source.stat().st_size)
        if called.nodes > MOST_EXPANDED_NODES or called.bytes > allowed:
            raise InputError(
                f"{self.source} calls local functions that become {called.nodes:,} nodes and "
                f"{called.bytes:,} bytes, at most {MOST_EXPANDED_NODES:,} and {allowed:,} are read"
            )

    def _measure(self, first: FunctionKey, known: dict[FunctionKey, _Cost]) -> None:
        """Note the cost of a function and of all that it calls; no recursion, for chains may be long."""
        waiting, open_calls = [first], set()
        while waiting:
            key = waiting[-1]
            if key in known:
                waiting.pop()
                continue
            nodes = self.functions[key].node
            missing = [
                called
                for called in _calls(nodes)
                if called in self.functions and called not in known
            ]
            if missing and key in open_calls:
                raise self.refuse(f"its function {key[1]} calls itself")
            if missing:
                open_calls.add(key)
                waiting += missing
                continue
            known[key] = self._cost(nodes, known, own=True)
            open_calls.discard(key)
            waiting.pop()

    def _cost(
        self, nodes: Iterable[onnx.NodeProto], known: Mapping[FunctionKey, _Cost], *, own: bool
    ) -> _Cost:
        """Return what nodes become; ``own``: they are themselves part of a function."""
        total = _Cost()
        for node in nodes:
            total += known.get(_key(node), _Cost(nodes=int(own)))
            for attribute in node.attribute:
                if own:
                    total += _Cost(bytes=sum(tensor.ByteSize() for tensor in _tensors(attribute)))
                for body in _graphs(attribute):
                    total += self._cost(body.node, known, own=own)
                    if own:
                        total += _Cost(bytes=sum(item.ByteSize() for item in body.initializer))
        return total


def _calls(nodes: Iterable[onnx.NodeProto]) -> set[FunctionKey]:
    found = set()
    for node in nodes:
        found.add(_key(node))
        for attribute in node.attribute:
            for body in _graphs(attribute):
                found |= _calls(body.node)
    return found


def _key(node: onnx.NodeProto) -> FunctionKey:
    return node.domain, node.op_type, node.overload


def _graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)


def _tensors(attribute: onnx.AttributeProto) -> list[onnx.TensorProto]:
    return [attribute.t] if attribute.type == AttributeProto.TENSOR else list(attribute.tensors)


@cache
def _schema(operator: str, opset: int) -> Any:
    """Return the schema of an operator of ONNX at an opset; None where there is none."""
    newest = onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(operator, max(1, min(opset, newest)) if opset > 0 else newest)
    except onnx.defs.SchemaError:
        return None
