"""Arrays in numpy's own format: headers are checked before anything is allocated or inflated.

``numpy.load`` allocates what a header asks for, inflates a member whole, and reports a damaged header as whatever its
parser gives. Here a header is a dictionary of three plain keys, and sizes are measured against the file.
"""

import ast
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.files.input_files import check_file

__all__ = [
    "ArchiveMember",
    "NpyHeader",
    "most_bytes",
    "open_archive",
    "read_npy",
    "read_npy_header",
]

MAGIC = b"\x93NUMPY"
LENGTHS = {1: "<H", 2: "<I", 3: "<I"}
"""Format of the header's length, by major version."""
LONGEST_HEADER = 10_000
DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d{1,9})")
"""Types of plain values; Python objects, records and times are not inputs of a model."""
MOST_AXES, LARGEST_AXIS = 32, 2**40

LEAST_INFLATED, INFLATION = 256 << 20, 32
"""A file may hold arrays of `LEAST_INFLATED` bytes, and of `INFLATION` times its own where that is more."""

DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, OverflowError, NotImplementedError, RuntimeError, IndexError),
)
"""What ``zipfile`` raises for a damaged, encrypted or oddly compressed archive; only its own calls are guarded."""


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, count: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyHeader:
    """Shape and type of a stored array, and whether it is stored column by column."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, content: bytes) -> npt.NDArray[Any]:
        """Return the array of so many bytes."""
        flat: npt.NDArray[Any] = np.frombuffer(content, self.dtype)
        return flat.reshape(self.shape[::-1]).T if self.fortran else flat.reshape(self.shape)


def read_npy_header(stream: Readable, where: str) -> NpyHeader:
    """Read the header of an array; the stream then stands at its values.

    Args:
        stream: At the start.
        where: What errors call it.

    Raises:
        InputError: It is damaged, or the array holds no plain values.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != MAGIC or start[6] not in LENGTHS:
        raise InputError(f"{where} is not an .npy file")
    length_format = LENGTHS[start[6]]
    content = stream.read(struct.calcsize(length_format))
    if len(content) < struct.calcsize(length_format):
        raise InputError(f"{where} ends within its header")
    (length,) = struct.unpack(length_format, content)
    if length > LONGEST_HEADER:
        raise InputError(
            f"{where} has a header of {length} bytes, at most {LONGEST_HEADER} are read"
        )
    text = stream.read(length)
    if len(text) < length:
        raise InputError(f"{where} ends within its header")
    return _parse(text.decode("latin-1"), where)


def _parse(text: str, where: str) -> NpyHeader:
    try:
        fields = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{where} has a damaged header") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise InputError(f"{where} has a damaged header: descr, fortran_order and shape are needed")
    kind, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(kind, str) or not DTYPE.fullmatch(kind):
        objects = " (Python objects)" if isinstance(kind, str) and kind.endswith("O") else ""
        raise InputError(
            f"{where} is of type {kind!r}{objects}, plain arrays of numbers are needed"
        )
    sizes = shape if isinstance(shape, tuple) else ()
    fine = isinstance(shape, tuple) and len(sizes) <= MOST_AXES and isinstance(fortran, bool)
    if not fine or not all(type(size) is int and 0 <= size <= LARGEST_AXIS for size in sizes):
        raise InputError(f"{where} has a damaged header: shape {shape!r}"[:200])
    return NpyHeader(shape=sizes, dtype=np.dtype(kind), fortran=fortran)


def read_npy(path: str | Path) -> npt.NDArray[Any]:
    """Read an ``.npy`` file.

    Raises:
        InputError: The file is missing, damaged, or shorter than its header says.
    """
    source = check_file(path, needed="an .npy file")
    with source.open("rb") as stream:
        header = read_npy_header(stream, str(source))
        left = source.stat().st_size - stream.tell()
        if header.nbytes > left:
            raise InputError(
                f"{source} is truncated: shape {header.shape} takes {header.nbytes:,} bytes, {left:,} "
                "are there"
            )
        return header.array(stream.read(header.nbytes)).copy()


def most_bytes(path: Path) -> int:
    """Return how many bytes of arrays a compressed file may hold."""
    return max(LEAST_INFLATED, INFLATION * path.stat().st_size)


@dataclass(slots=True, kw_only=True)
class ArchiveMember:
    """An array inside an ``.npz``, read from front to back."""

    name: str
    header: NpyHeader
    stream: "_GuardedStream"
    where: str

    def read(self, count: int) -> bytes:
        """Return the next bytes of the values.

        Raises:
            InputError: They are damaged or not there.
        """
        content = self.stream.read(count)
        if len(content) < count:
            raise InputError(
                f"{self.where} is truncated: shape {self.header.shape} needs more bytes"
            )
        return content

    def array(self) -> npt.NDArray[Any]:
        """Return the whole array; it can be read once, and its checksum is checked."""
        content = self.read(self.header.nbytes)
        self.stream.read(1)  # at its end zipfile compares the checksum
        return self.header.array(content).copy()


@dataclass(frozen=True, slots=True)
class _GuardedStream:
    """A member that is being inflated; ``read`` raises one kind of error."""

    stream: IO[bytes]
    where: str

    def read(self, count: int) -> bytes:
        with _guarded(self.where):
            return self.stream.read(count)


@contextmanager
def open_archive(path: str | Path) -> Iterator[list[ArchiveMember]]:
    """Yield the arrays of an ``.npz``; none is read yet, and their headers are checked.

    Raises:
        InputError: The file is not such an archive, is damaged or encrypted, or holds something else.
    """
    source = check_file(path, needed="an .npz file")
    with _guarded(f"{source} is not an .npz file of plain arrays", alone=True):
        archive = zipfile.ZipFile(source)
    with archive, ExitStack() as streams:
        yield [_open_member(archive, info, source, streams) for info in archive.infolist()]


def _open_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path, streams: ExitStack
) -> ArchiveMember:
    name = info.filename.removesuffix(".npy")
    where = f"{source}: array {name}"
    if not name.isprintable() or not name:
        raise InputError(f"{source} holds a member whose name is damaged")
    if info.flag_bits & 1:
        raise InputError(f"{where} is encrypted", hint="numpy.savez('x.npz', name=array)")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(
            f"{where} is compressed in a way that numpy does not write (method {info.compress_type})",
            hint="numpy.savez('x.npz', name=array)",
        )
    with _guarded(where):
        stream = _GuardedStream(streams.enter_context(archive.open(info)), where)
    header = read_npy_header(stream, where)
    if header.nbytes > info.file_size:
        raise InputError(
            f"{where} is truncated: shape {header.shape} takes {header.nbytes:,} bytes, "
            f"{info.file_size:,} are stored"
        )
    return ArchiveMember(name=name, header=header, stream=stream, where=where)


@contextmanager
def _guarded(where: str, *, alone: bool = False) -> Iterator[None]:
    """Turn what reading an archive raises into one error."""
    try:
        yield
    except DAMAGES as error:
        raise InputError(where if alone else f"{where} cannot be read: {error}") from error
