"""Read an ``.onnx`` file as a graph: parsed, checked, then made into onnx_ir."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from loopedge.artifact.reading.fill_check import check_fills
from loopedge.artifact.reading.loop_check import check_loops
from loopedge.artifact.reading.node_order import order_nodes
from loopedge.artifact.reading.onnx_check import check_proto
from loopedge.errors import InputError
from loopedge.files.input_files import read_bytes

__all__ = ["SMALL_BYTES", "parse_onnx", "read_onnx"]

SMALL_BYTES = 1024
"""Of a tensor that stands in the file itself wherever loopedge writes one."""

HARMLESS = ("contains invalid UTF-8 bytes",)
"""What onnx_ir logs of models that are used all the same: operators of other domains keep bytes in text."""


def read_onnx(path: Path) -> tuple[ir.Model, list[Path]]:
    """Return the graph of a file, and the files of its external data beside it, which are not read yet.

    Raises:
        InputError: The file is not an ONNX model, breaks a rule of `loopedge.artifact.reading.onnx_check`, or its external
            data is missing, short, or outside its folder.
    """
    proto = parse_onnx(path)
    if not proto.graph.name and not proto.graph.node and not proto.graph.output:
        raise InputError(f"{path} is not an ONNX file: it holds no graph")
    order_nodes(proto.graph)
    external = check_proto(proto, path)
    try:
        with _quiet():
            model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:  # a rule that is onnx_ir's alone
        raise InputError(f"{path} is not a valid ONNX model: {_reason(error)}") from error
    _finish(model, {location: found.file for location, found in external.items()})
    check_loops(model, path)
    check_fills(model, path)
    return model, sorted({found.file for found in external.values()})


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Return what a file holds as it stands there. Nothing is checked.

    Raises:
        InputError: There is no such file, or it cannot be parsed.
    """
    return _parse(path)


def _parse(path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(
            read_bytes(path, needed="an ONNX file", hint="loopedge export model.pt")
        )
    except DecodeError as error:
        hint = f"loopedge export {path}" if path.suffix == ".pt" else None
        raise InputError(f"{path} is not an ONNX file: it cannot be parsed", hint=hint) from error
    return proto


def _finish(model: ir.Model, files: dict[str, Path]) -> None:
    """Let external tensors name the very files that were checked: links are followed once, here.

    What a file says of a value by half, its shape without its type, is dropped.
    """
    graphs = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _resolved(value.const_value, files)
                value.type = ir.TensorType(value.const_value.dtype)
        for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
            if value.type is None:  # a shape alone cannot be written
                value.shape = None
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = attribute.as_tensor()
                    if isinstance(tensor, ir.ExternalTensor):
                        node.attributes[name] = ir.AttrTensor(name, _resolved(tensor, files))


def _resolved(tensor: ir.TensorProtocol, files: dict[str, Path]) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    found = ir.ExternalTensor(
        files[str(tensor.location)].resolve(),
        tensor.offset,
        tensor.nbytes,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        doc_string=tensor.doc_string,
    )
    if tensor.nbytes >= SMALL_BYTES:
        return found
    # A writer stores it in the file, and could not let go of a map that somebody still looks at.
    return ir.Tensor(found.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def _reason(error: BaseException) -> str:
    """Return the innermost reason: onnx_ir puts the text of a node around each."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what onnx and onnx_ir say of `HARMLESS` models, by text."""
    logger = logging.getLogger("onnx_ir.serde")

    def matters(record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in HARMLESS)

    logger.addFilter(matters)
    try:
        with warnings.catch_warnings():
            # onnxruntime names the packed weights of a prepared file there.
            warnings.filterwarnings("ignore", r"Ignoring unknown external data key\(s\)")
            yield
    finally:
        logger.removeFilter(matters)
