"""Hold a stored tensor to what it says of itself, before it is read: type, shape, and as many values."""

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from loopedge.artifact.reading.external_data import external_file
from loopedge.errors import InputError

__all__ = ["LARGEST_AXIS", "MOST_AXES", "External", "check_tensor"]

MOST_AXES, LARGEST_AXIS = 32, 2**40
"""What numpy can hold."""
LARGEST_OFFSET = 2**62

FIELDS = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
}
"""Where values stand that are not raw; of all other types in int32_data."""
VALUES_EACH = {"COMPLEX64": 2, "COMPLEX128": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """Where a tensor's values stand: the file, as it stands beside the model."""

    file: Path
    offset: int
    length: int


def check_tensor(tensor: onnx.TensorProto, source: Path) -> External | None:
    """Refuse a tensor whose values are not what its type and shape ask for.

    Returns:
        Where its values stand, where that is outside the file.

    Raises:
        InputError: As said, or as `external_file`.
    """
    what = f"{source}: tensor {tensor.name or '(without a name)'}"
    dtype = _dtype(tensor, what)
    shape = list(tensor.dims)
    if len(shape) > MOST_AXES or not all(0 <= size <= LARGEST_AXIS for size in shape):
        raise InputError(f"{what} has the shape {shape}, which no tensor has"[:300])
    if tensor.HasField("segment"):
        raise InputError(f"{what} is stored in segments, which are not read")
    bits = math.prod(shape) * dtype.bitwidth
    nbytes = -(-bits // 8)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _check_external(tensor, nbytes, what, source)
    if tensor.HasField("raw_data"):
        stored, wanted, unit = len(tensor.raw_data), nbytes, "bytes"
    else:
        field = getattr(tensor, FIELDS.get(dtype.name, "int32_data"))
        stored, unit = len(field), "values"
        packed = dtype.bitwidth < 8
        wanted = nbytes if packed else math.prod(shape) * VALUES_EACH.get(dtype.name, 1)
    if stored != wanted:
        raise InputError(
            f"{what} holds {stored:,} {unit}, its shape {shape} needs {wanted:,}"[:300]
        )
    return None


def _dtype(tensor: onnx.TensorProto, what: str) -> ir.DataType:
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise InputError(f"{what} has the unknown type {tensor.data_type}") from error
    if dtype in {ir.DataType.UNDEFINED, ir.DataType.STRING}:
        raise InputError(f"{what} is of type {dtype.name}, numbers are needed")
    return dtype


def _check_external(tensor: onnx.TensorProto, nbytes: int, what: str, source: Path) -> External:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    offset, length = (_number(entries.get(key, "0"), key, what) for key in ("offset", "length"))
    if length and length != nbytes:
        raise InputError(
            f"{what} names {length:,} bytes of external data, its shape "
            f"{list(tensor.dims)} needs {nbytes:,}"
        )
    file = external_file(source, location)
    size = file.stat().st_size
    if size < offset + nbytes:
        raise InputError(
            f"{file} is truncated: {size} bytes, tensor {tensor.name} ends at byte {offset + nbytes}"
        )
    return External(file=file, offset=offset, length=nbytes)


def _number(text: str, key: str, what: str) -> int:
    fine = text.isascii() and text.isdigit() and len(text) < 20
    if not fine or int(text) > LARGEST_OFFSET:
        raise InputError(f"{what} has the {key} {text[:40]!r} of external data, which is none")
    return int(text)
