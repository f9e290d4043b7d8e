"""Read a model in ORT format (a flatbuffer) as a graph, and list the operators that it needs.

ONNX Runtime ships the reader of its own format; what it reads is put into onnx_ir here, so that all
that inspects or measures a graph takes an ``.ort`` file too. Nothing writes the format but ONNX Runtime.
"""

import importlib
import importlib.util
import math
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnx_ir as ir

from loopedge.artifact.reading.flat_table import DamagedError, FlatTable, Reading
from loopedge.artifact.reading.loop_check import check_loops
from loopedge.artifact.reading.onnx_check import body_fits, operator_problem
from loopedge.artifact.reading.tensor_check import LARGEST_AXIS, MOST_AXES
from loopedge.errors import InputError

__all__ = [
    "GRAPH",
    "ORT_SUFFIX",
    "is_ort_format",
    "read_ort",
    "read_ort_properties",
    "required_operators",
    "stored_graph",
]

ORT_SUFFIX = ".ort"
"""By this ending ONNX Runtime knows the format of a file."""

FLATBUFFERS = "ort_flatbuffers_py"
PROCESSORS = "ort_format_model"
"""Packages of ONNX Runtime's reader, by the names that it knows itself by."""

IDENTIFIER = b"ORTM"
LEAST_BYTES = 8
DEEPEST = 64
WHOLE_BYTES = 8
FLAT_KINDS = {1: "F", 2: "I"}
LIST_KINDS = {6: "Floats", 7: "Ints"}
STRING, TENSOR, GRAPH, STRINGS = 3, 4, 5, 8
VALUE, PARAM = 1, 2  # of a dimension


def is_ort_format(path: str | Path) -> bool:
    """Tell an ORT format file, by its ending."""
    return Path(path).suffix == ORT_SUFFIX


def read_ort(path: Path) -> ir.Model:
    """Return the graph of an ORT format file; its weights stay on disk until they are read.

    Raises:
        InputError: The file is damaged, or not in ORT format, or a Loop runs past what is allowed.
    """
    try:
        model = _model(_open(path))
    except DamagedError as error:
        raise InputError(f"{path} is not an ORT format file, or damaged: {error}") from error
    check_loops(model, path)
    return model


def read_ort_properties(path: Path) -> dict[str, str]:
    """Return the ``metadata_props`` of an ORT format file, whose weights stay on disk.

    Raises:
        ValueError: The file is damaged, or not in ORT format.
    """
    try:
        return _properties(_open(path))
    except DamagedError as error:
        raise ValueError(f"{path} is not an ORT format file, or damaged: {error}") from error


def _properties(stored: FlatTable) -> dict[str, str]:
    entries = stored.tables("MetadataProps")
    return {_text(entry.Key()): _text(entry.Value()) for entry in entries}


def required_operators(path: Path) -> str:
    """Return the operators of an ORT format file, as ``--include_ops_by_config`` of a build reads it.

    Each line names a domain, an opset and its operators, with the types they are used with: a build
    with ``--enable_reduced_operator_type_support`` leaves the other types out, any other ignores them.
    """
    _reader(f"{FLATBUFFERS}.fbs")
    types = _reader(f"{PROCESSORS}.operator_type_usage_processors").OperatorTypeUsageManager()
    found: dict[tuple[str, int], set[str]] = {}
    _add_operators(_open(path).table("Graph").stored, {}, found, types)  # written a moment ago
    lines = [f"# Operators of {path.name}"]
    for (domain, opset), names in sorted(found.items()):
        described = [
            f"{name}{types.get_config_entry(domain, name) or ''}" for name in sorted(names)
        ]
        lines.append(f"{domain};{opset};{','.join(described)}")
    return "\n".join(lines) + "\n"


def _add_operators(
    graph: Any, outer: Mapping[bytes, Any], found: dict[tuple[str, int], set[str]], types: Any
) -> None:
    arguments = [graph.NodeArgs(i) for i in range(graph.NodeArgsLength())]
    scope = {**outer, **{argument.Name(): argument.Type() for argument in arguments}}
    for node in (graph.Nodes(i) for i in range(graph.NodesLength())):
        key = (_text(node.Domain()) or "ai.onnx", node.SinceVersion())
        found.setdefault(key, set()).add(_text(node.OpType()))
        types.process_node(node, scope)
        for attribute in (node.Attributes(i) for i in range(node.AttributesLength())):
            if attribute.Type() == GRAPH:
                _add_operators(attribute.G(), scope, found, types)


def _reader(name: str) -> Any:
    """Import a module of ONNX Runtime's own reader of the format.

    Not by way of ``onnxruntime.tools``: that imports torch where it is installed, and sets up logging.
    """
    (runtime,) = importlib.util.find_spec("onnxruntime").submodule_search_locations  # type: ignore[union-attr,misc]
    folder = Path(runtime) / "tools" / "ort_format_model"
    for package, place in ((FLATBUFFERS, folder / FLATBUFFERS), (PROCESSORS, folder)):
        if package not in sys.modules:
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(place)]
    return importlib.import_module(name)


def _open(path: Path) -> FlatTable:
    session = _reader(f"{FLATBUFFERS}.fbs.InferenceSession").InferenceSession
    size = path.stat().st_size
    if size < LEAST_BYTES:
        raise DamagedError("it is too short")
    with path.open("rb") as source:
        buffer = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    if buffer[4:8] != IDENTIFIER:
        raise DamagedError("no identifier")
    return FlatTable(session, Reading(size)).table("GetRootAs", buffer, 0).table("Model")


def stored_graph(buffer: Any) -> Any:
    """Return the main graph of a file that was written a moment ago, as ONNX Runtime's reader has it."""
    session = _reader(f"{FLATBUFFERS}.fbs.InferenceSession").InferenceSession
    return session.GetRootAs(buffer, 0).Model().Graph()


def _model(stored: FlatTable) -> ir.Model:
    opsets = {_text(item.Domain()): item.Version() for item in stored.tables("OpsetImport")}
    graph = _graph(stored.table("Graph"), {}, opsets, 1)
    graph.opset_imports.update(opsets)
    return ir.Model(
        graph,
        ir_version=stored.IrVersion(),
        producer_name=_text(stored.ProducerName()) or None,
        metadata_props=_properties(stored),
    )


def _graph(
    stored: FlatTable, outer: Mapping[str, ir.Value], opsets: Mapping[str, int], depth: int
) -> ir.Graph:
    if depth > DEEPEST:
        raise DamagedError(f"its graphs are nested deeper than {DEEPEST} levels")
    nodes = stored.tables("Nodes")
    tensors = {}
    for item in stored.tables("Initializers"):
        tensors[_text(item.Name())] = _tensor(item)
    inputs = _names(stored, "Inputs")
    made = [name for node in nodes for name in _names(node, "Outputs") if name]
    if len({*made, *inputs}) < len(made) + len(inputs) or not tensors.keys().isdisjoint(made):
        raise DamagedError("two values have one name")
    local = {name: ir.Value(name=name) for name in dict.fromkeys([*inputs, *tensors, *made])}
    for argument in stored.tables("NodeArgs"):
        value = local.get(_text(argument.Name()))
        if value is not None:
            value.type, value.shape = _type(argument.Type())
    for name, tensor in tensors.items():
        local[name].const_value = tensor
        local[name].type = ir.TensorType(tensor.dtype)
        local[name].shape = ir.Shape([int(size) for size in tensor.shape])  # type: ignore[arg-type]
    scope = {**outer, **local}
    graph = ir.Graph(
        [local[name] for name in inputs if name not in tensors],
        [_value(scope, name) for name in _names(stored, "Outputs")],
        nodes=[_node(node, scope, opsets, depth) for node in nodes],
        initializers=[local[name] for name in tensors],
        name="graph",
    )
    try:
        graph.sort()
    except ValueError as error:  # onnx_ir's word for a cycle
        raise DamagedError("its nodes read each other") from error
    return graph


def _value(scope: Mapping[str, ir.Value], name: str) -> ir.Value:
    if name not in scope:
        raise DamagedError(f"nothing makes {name!r}")
    return scope[name]


def _node(
    stored: FlatTable, scope: Mapping[str, ir.Value], opsets: Mapping[str, int], depth: int
) -> ir.Node:
    domain, operator = _text(stored.Domain()), _text(stored.OpType())
    inputs, outputs = _names(stored, "Inputs"), _names(stored, "Outputs")
    attributes = [_attribute(item, scope, opsets, depth) for item in stored.tables("Attributes")]
    kinds: dict[str, int | None] = {item.name: int(item.type) for item in attributes}
    if not operator or len(kinds) < len(attributes):
        raise DamagedError("a node has no operator, or two attributes of one name")
    if domain in {"", "ai.onnx"}:
        problem = operator_problem(operator, opsets.get("", 0), inputs, len(outputs), kinds)
        fits = all(
            body_fits(operator, len(inputs), len(body.inputs), len(body.outputs), len(outputs))
            for body in (
                item.as_graph() for item in attributes if item.type == ir.AttributeType.GRAPH
            )
        )
        if problem is not None or not fits:
            raise DamagedError(f"{operator} {problem or 'does not fit its body'}")
    return ir.Node(
        domain,
        operator,
        [_value(scope, name) if name else None for name in inputs],
        attributes,
        outputs=[scope[name] if name else ir.Value(name="") for name in outputs],
        name=_text(stored.Name()),
    )


def _attribute(
    stored: FlatTable, scope: Mapping[str, ir.Value], opsets: Mapping[str, int], depth: int
) -> ir.Attr:
    kind = stored.Type()
    value: Any
    if kind in FLAT_KINDS:
        value = getattr(stored, FLAT_KINDS[kind])()
    elif kind in LIST_KINDS:
        read, length = (getattr(stored, LIST_KINDS[kind] + end) for end in ("", "Length"))
        value = [read(i) for i in range(length())]
    elif kind == STRING:
        value = _text(stored.S())
    elif kind == STRINGS:
        value = _names(stored, "Strings")
    elif kind == TENSOR:
        value = _tensor(stored.table("T"))
    elif kind == GRAPH:
        value = _graph(stored.table("G"), scope, opsets, depth + 1)
    else:
        raise DamagedError(f"an attribute is of kind {kind}")
    return ir.Attr(_text(stored.Name()), ir.AttributeType(kind), value)


def _data_type(stored: int) -> ir.DataType:
    try:
        dtype = ir.DataType(stored)
    except ValueError as error:
        raise DamagedError(f"a tensor is of type {stored}") from error
    return dtype


def _tensor(stored: FlatTable) -> ir.TensorProtocol:
    name, dtype = _text(stored.Name()), _data_type(stored.DataType())
    shape = [stored.Dims(i) for i in range(stored.DimsLength())]
    if dtype in {ir.DataType.UNDEFINED, ir.DataType.STRING}:
        raise DamagedError(f"tensor {name} is of type {dtype.name}, numbers are needed")
    if len(shape) > MOST_AXES or not all(0 <= size <= LARGEST_AXIS for size in shape):
        raise DamagedError(f"tensor {name} has the shape {shape[:MOST_AXES]}")
    raw: Any = stored.RawDataAsNumpy() if stored.RawDataLength() else None
    held, wanted = 0 if raw is None else raw.size, -(-math.prod(shape) * dtype.bitwidth // 8)
    if held != wanted:
        raise DamagedError(
            f"tensor {name} holds {held:,} bytes, its shape {shape} needs {wanted:,}"
        )
    if raw is not None and dtype.bitwidth >= WHOLE_BYTES:
        return ir.Tensor(raw.view(dtype.numpy()).reshape(shape), dtype=dtype, name=name)
    data = b"" if raw is None else raw.tobytes()
    proto = onnx.TensorProto(name=name, data_type=dtype, dims=shape, raw_data=data)
    return ir.serde.TensorProtoTensor(proto)


def _type(stored: FlatTable | None) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    value = None if stored is None or stored.ValueType() != 1 else stored.Value()
    if stored is None or value is None:
        return None, None
    tensor = _reader(f"{FLATBUFFERS}.fbs.TensorTypeAndShape").TensorTypeAndShape()
    tensor.Init(value.stored.Bytes, value.stored.Pos)
    typed = FlatTable(tensor, value.reading)
    shape = typed.Shape()
    dims = None
    if shape is not None:
        dims = [_dim(item.Value()) for item in shape.tables("Dim")]
    return ir.TensorType(_data_type(typed.ElemType())), None if dims is None else ir.Shape(dims)


def _dim(stored: FlatTable | None) -> int | str | None:
    if stored is None:
        return None
    kind = stored.DimType()
    return int(stored.DimValue()) if kind == VALUE else _text(stored.DimParam()) or None


def _names(stored: FlatTable, field: str) -> list[str]:
    return [_text(getattr(stored, field)(i)) for i in range(getattr(stored, f"{field}Length")())]


def _text(stored: bytes | None) -> str:
    try:
        return "" if stored is None else stored.decode()
    except UnicodeDecodeError as error:
        raise DamagedError("a name is not UTF-8 text") from error
