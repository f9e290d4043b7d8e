"""Read a model in ORT format (a flatbuffer) as a graph, and list the operators that it needs.

ONNX Runtime ships the reader of its own format; what it reads is put into onnx_ir here, so that all
that inspects or measures a graph takes an ``.ort`` file too. Nothing writes the format but ONNX Runtime.
"""

import importlib
import importlib.util
import mmap
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnx_ir as ir

from loopedge.errors import InputError

__all__ = ["ORT_SUFFIX", "is_ort_format", "read_ort", "read_ort_properties", "required_operators"]

ORT_SUFFIX = ".ort"
"""By this ending ONNX Runtime knows the format of a file."""

FLATBUFFERS = "ort_flatbuffers_py"
PROCESSORS = "ort_format_model"
"""Packages of ONNX Runtime's reader, by the names that it knows itself by."""

IDENTIFIER = b"ORTM"
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
        InputError: The file is damaged, or not in ORT format.
    """
    try:
        return _model(_open(path))
    except (struct.error, IndexError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is not an ORT format file, or damaged") from error


def read_ort_properties(path: Path) -> dict[str, str]:
    """Return the ``metadata_props`` of an ORT format file, whose weights stay on disk.

    Raises:
        ValueError: The file is damaged, or not in ORT format.
    """
    try:
        return _properties(_open(path))
    except (struct.error, IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not an ORT format file, or damaged") from error


def _properties(stored: Any) -> dict[str, str]:
    entries = [stored.MetadataProps(i) for i in range(stored.MetadataPropsLength())]
    return {_text(entry.Key()): _text(entry.Value()) for entry in entries}


def required_operators(path: Path) -> str:
    """Return the operators of an ORT format file, as ``--include_ops_by_config`` of a build reads it.

    Each line names a domain, an opset and its operators, with the types they are used with: a build
    with ``--enable_reduced_operator_type_support`` leaves the other types out, any other ignores them.
    """
    _reader(f"{FLATBUFFERS}.fbs")
    types = _reader(f"{PROCESSORS}.operator_type_usage_processors").OperatorTypeUsageManager()
    found: dict[tuple[str, int], set[str]] = {}
    _add_operators(_open(path).Graph(), {}, found, types)
    lines = [f"# Operators of {path.name}"]
    for (domain, opset), names in sorted(found.items()):
        told = [f"{name}{types.get_config_entry(domain, name) or ''}" for name in sorted(names)]
        lines.append(f"{domain};{opset};{','.join(told)}")
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


def _open(path: Path) -> Any:
    session = _reader(f"{FLATBUFFERS}.fbs.InferenceSession").InferenceSession
    with path.open("rb") as source:
        buffer = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    if buffer[4:8] != IDENTIFIER:
        raise ValueError("no identifier")
    return session.GetRootAs(buffer, 0).Model()


def _model(stored: Any) -> ir.Model:
    graph = _graph(stored.Graph(), {})
    imports = [stored.OpsetImport(i) for i in range(stored.OpsetImportLength())]
    graph.opset_imports.update({_text(item.Domain()): item.Version() for item in imports})
    graph.sort()
    return ir.Model(
        graph,
        ir_version=stored.IrVersion(),
        producer_name=_text(stored.ProducerName()) or None,
        metadata_props=_properties(stored),
    )


def _graph(stored: Any, outer: Mapping[str, ir.Value]) -> ir.Graph:
    nodes = [stored.Nodes(i) for i in range(stored.NodesLength())]
    tensors = {
        _text(item.Name()): _tensor(item)
        for item in (stored.Initializers(i) for i in range(stored.InitializersLength()))
    }
    inputs = _names(stored, "Inputs")
    made = [name for node in nodes for name in _names(node, "Outputs") if name]
    local = {name: ir.Value(name=name) for name in dict.fromkeys([*inputs, *tensors, *made])}
    for i in range(stored.NodeArgsLength()):
        argument = stored.NodeArgs(i)
        value = local.get(_text(argument.Name()))
        if value is not None:
            value.type, value.shape = _type(argument.Type())
    for name, tensor in tensors.items():
        local[name].const_value = tensor
        local[name].type = ir.TensorType(tensor.dtype)
        local[name].shape = ir.Shape([int(size) for size in tensor.shape])  # type: ignore[arg-type]
    scope = {**outer, **local}
    return ir.Graph(
        [local[name] for name in inputs if name not in tensors],
        [scope[name] for name in _names(stored, "Outputs")],
        nodes=[_node(node, scope) for node in nodes],
        initializers=[local[name] for name in tensors],
        name="graph",
    )


def _node(stored: Any, scope: Mapping[str, ir.Value]) -> ir.Node:
    attributes = [stored.Attributes(i) for i in range(stored.AttributesLength())]
    return ir.Node(
        _text(stored.Domain()),
        _text(stored.OpType()),
        [scope[name] if name else None for name in _names(stored, "Inputs")],
        [_attribute(item, scope) for item in attributes],
        outputs=[scope[name] if name else ir.Value(name="") for name in _names(stored, "Outputs")],
        name=_text(stored.Name()),
    )


def _attribute(stored: Any, scope: Mapping[str, ir.Value]) -> ir.Attr:
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
        value = [_text(stored.Strings(i)) for i in range(stored.StringsLength())]
    elif kind == TENSOR:
        value = _tensor(stored.T())
    elif kind == GRAPH:
        value = _graph(stored.G(), scope)
    else:
        raise ValueError(f"attribute kind {kind}")
    return ir.Attr(_text(stored.Name()), ir.AttributeType(kind), value)


def _tensor(stored: Any) -> ir.TensorProtocol:
    name, dtype = _text(stored.Name()), ir.DataType(stored.DataType())
    shape = [stored.Dims(i) for i in range(stored.DimsLength())]
    raw: Any = stored.RawDataAsNumpy() if stored.RawDataLength() else None
    if raw is not None and dtype.bitwidth >= WHOLE_BYTES:
        return ir.Tensor(raw.view(dtype.numpy()).reshape(shape), dtype=dtype, name=name)
    data = b"" if raw is None else raw.tobytes()
    proto = onnx.TensorProto(name=name, data_type=dtype, dims=shape, raw_data=data)
    return ir.serde.TensorProtoTensor(proto)


def _type(stored: Any) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
    if stored is None or stored.ValueType() != 1 or stored.Value() is None:
        return None, None
    tensor = _reader(f"{FLATBUFFERS}.fbs.TensorTypeAndShape").TensorTypeAndShape()
    tensor.Init(stored.Value().Bytes, stored.Value().Pos)
    shape = tensor.Shape()
    dims: list[int | str | None] | None = None
    if shape is not None:
        values = [shape.Dim(i).Value() for i in range(shape.DimLength())]
        dims = [_dim(value) for value in values]
    return ir.TensorType(ir.DataType(tensor.ElemType())), None if dims is None else ir.Shape(dims)


def _dim(stored: Any) -> int | str | None:
    if stored is None:
        return None
    kind = stored.DimType()
    return int(stored.DimValue()) if kind == VALUE else _text(stored.DimParam()) or None


def _names(stored: Any, field: str) -> list[str]:
    return [_text(getattr(stored, field)(i)) for i in range(getattr(stored, f"{field}Length")())]


def _text(stored: bytes | None) -> str:
    return "" if stored is None else stored.decode()
