"""The tensors of a folder's safetensors files, read when they are needed: by rows, from the disk, into float32.

A file is a length, a JSON header with names, types, shapes and places, then the data. Nothing of it is kept in
memory or mapped: what is mapped counts as memory of the process.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.files.json_text import parse_json, read_json

__all__ = ["CHUNK_BYTES", "Checkpoint", "StoredTensor", "open_checkpoint"]

Array = npt.NDArray[np.float32]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Types of numbers that are read."""

MOST_HEADER_BYTES = 100 << 20
CHUNK_BYTES = 32 << 20
"""Float32 values that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor stands.

    Args:
        name: Its name.
        file: The file.
        dtype: As the file names it: ``F32``, ``F16`` or ``BF16``.
        shape: Of the tensor.
        offset: Of its first byte in the file.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def row_values(self) -> int:
        """Values of a row: of what shares index 0."""
        return math.prod(self.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Return rows ``start`` to ``stop`` as float32; a scalar has one row.

        Raises:
            InputError: The file is shorter than its header says, or a value is not finite.
        """
        stop = (self.shape or (1,))[0] if stop is None else stop
        row = self.row_values * ITEM_BYTES[self.dtype]
        size = (stop - start) * row
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.offset + start * row)
            content = bytearray(size)
            view, got = memoryview(content), 0
            while got < size:
                count = file.readinto(view[got:])
                if not count:
                    raise InputError(
                        f"{self.file} is damaged: it ends within the tensor {self.name}"
                    )
                got += count
        values = _float32(content, self.dtype)
        if not np.isfinite(values).all():
            raise InputError(f"{self.file}: tensor {self.name} holds a value that is not finite")
        return values.reshape((stop - start, *self.shape[1:]) if self.shape else ())

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Array]]:
        """Yield the rows in parts, each with its first row: at most `CHUNK_BYTES` of float32 where a row is smaller."""
        stop = (self.shape or (1,))[0] if stop is None else stop
        step = max(1, CHUNK_BYTES // max(1, 4 * self.row_values))
        for first in range(start, stop, step):
            yield first, self.read(first, min(first + step, stop))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The tensors of a folder, by name, and the files that hold them."""

    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @property
    def dtypes(self) -> list[str]:
        """The types of the stored numbers, sorted."""
        return sorted({tensor.dtype for tensor in self.tensors.values()})

    def same(self, first: str, second: str) -> bool:
        """Tell whether two tensors hold the same values; reads as far as the first chunk that differs."""
        one, other = self.tensors[first], self.tensors[second]
        if one.shape != other.shape:
            return False
        return all(
            np.array_equal(values, other.read(start, start + len(values)))
            for start, values in one.chunks()
        )


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a folder's safetensors files: ``model.safetensors``, or the shards of its index.

    Raises:
        InputError: There is none, one is damaged, or the index names what no shard holds.
    """
    single, index = folder / SINGLE, folder / INDEX
    if not index.exists():
        if not single.exists():
            raise InputError(
                f"{folder} holds neither {SINGLE} nor {INDEX}",
                hint="weights of published models are read as safetensors alone",
            )
        return Checkpoint(files=(single,), tensors=_tensors(single))
    content = read_json(index, needed="an index of weights")
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index} is not an index of weights: it has no weight_map")
    shards = sorted(set(named.values()))
    for name in shards:
        if Path(name).name != name:
            raise InputError(f"{index} names {name}, a file beside it is needed")
    held = {name: _tensors(folder / name) for name in shards}
    for tensor, shard in named.items():
        if tensor not in held[shard]:
            raise InputError(f"{index} says that {shard} holds {tensor}, which it does not")
    tensors: dict[str, StoredTensor] = {}
    for name, own in held.items():
        for tensor, place in own.items():
            if named.get(tensor) != name:
                raise InputError(
                    f"{folder / name} holds {tensor}, which {index.name} does not name there"
                )
            tensors[tensor] = place
    return Checkpoint(files=tuple(folder / name for name in shards), tensors=tensors)


def _tensors(file: Path) -> dict[str, StoredTensor]:
    check_file(file, needed="a file of weights")
    header, start = _header(file)
    size, found = file.stat().st_size, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor = _tensor(file, name, entry, start)
        if tensor.offset + tensor.nbytes > size:
            raise InputError(f"{file} is damaged: it ends before the tensor {name} does")
        found[name] = tensor
    return found


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and where its data begins."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER_BYTES, os.fstat(opened.fileno()).st_size - 8):
            raise InputError(
                f"{file} is not a safetensors file or is damaged: its header has no length"
            )
        try:
            header = parse_json(opened.read(length).decode("utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is not a safetensors file: its header is no JSON") from error
    if not isinstance(header, dict):
        raise InputError(f"{file} is not a safetensors file: its header is no JSON object")
    return header, 8 + length


def _tensor(file: Path, name: str, entry: object, start: int) -> StoredTensor:
    if not isinstance(entry, dict):
        raise InputError(f"{file} is damaged: its header does not describe {name}")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if dtype not in ITEM_BYTES:
        raise InputError(
            f"{file}: tensor {name} is stored as {dtype}, {', '.join(ITEM_BYTES)} are read"
        )
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise InputError(f"{file} is damaged: its header does not describe {name}")
    tensor = StoredTensor(
        name=name, file=file, dtype=dtype, shape=tuple(shape), offset=start + offsets[0]
    )
    if offsets[1] - offsets[0] != tensor.nbytes:
        raise InputError(f"{file} is damaged: {name} has other bytes than its shape says")
    return tensor


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _float32(content: bytearray, dtype: str) -> Array:
    if dtype == "F32":
        return np.frombuffer(content, "<f4")
    if dtype == "F16":
        return np.frombuffer(content, "<f2").astype(np.float32)
    bits = np.frombuffer(content, "<u2").astype(np.uint32)
    bits <<= 16  # bfloat16 is the upper half of a float32
    return bits.view(np.float32)
