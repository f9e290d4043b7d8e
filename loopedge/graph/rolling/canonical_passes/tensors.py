"""Stored tensors that are read in parts: their hashes, and the same numbers in another order or shape.

No tensor is ever in memory twice, and a large one of a file not even once.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import onnx_ir as ir

__all__ = [
    "beginning",
    "digest",
    "reshaped",
    "sizes",
    "turned",
    "turned_beginning",
    "turned_digest",
]

BLOCK_BYTES = 4 << 20
BEGINNING = 256
"""So many elements tell most different tensors apart."""


def sizes(tensor: ir.TensorProtocol) -> list[int]:
    """Return the shape of a stored tensor."""
    return [int(size) for size in tensor.shape]  # type: ignore[arg-type]


class _Sink:
    """A file that keeps the hash of what is written to it alone."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self.hash.update(data)
        return len(data)


def digest(tensor: ir.TensorProtocol) -> bytes:
    """Return the hash of what a tensor holds."""
    if tensor.dtype == ir.DataType.STRING:
        parts = [bytes(part) for part in tensor.string_data()]  # type: ignore[attr-defined]
        return hashlib.sha256(repr(parts).encode()).digest()
    sink = _Sink()
    tensor.tofile(sink)  # type: ignore[attr-defined]
    return sink.hash.digest()


def beginning(tensor: ir.TensorProtocol) -> bytes:
    """Return the first numbers of a tensor; of some types nothing."""
    if tensor.dtype == ir.DataType.STRING or tensor.dtype.bitwidth < 8:
        return b""
    if isinstance(tensor, _TurnedTensor):
        return turned_beginning(tensor.source, tensor.order)
    if isinstance(tensor, _ReshapedTensor):
        return beginning(tensor.source)
    found = bytes(tensor.numpy().reshape(-1)[:BEGINNING].tobytes())
    _release(tensor)
    return found


def turned_beginning(tensor: ir.TensorProtocol, order: Sequence[int]) -> bytes:
    """Return the first numbers of a tensor when its axes are put in another order."""
    if tensor.dtype.bitwidth < 8:
        return b""
    array = tensor.numpy().transpose(order)
    found = np.array(list(islice(array.flat, BEGINNING)), array.dtype).tobytes()
    del array
    _release(tensor)
    return found


def turned_digest(tensor: ir.TensorProtocol, order: Sequence[int]) -> bytes:
    """Return the hash of what a tensor holds when its axes are put in another order.

    Args:
        tensor: A stored tensor of numbers.
        order: Of its axes, as Transpose takes it.
    """
    sink = _Sink()
    for block in _turned_blocks(tensor, order):
        sink.write(block)
    return sink.hash.digest()


def _turned_blocks(tensor: ir.TensorProtocol, order: Sequence[int]) -> Iterator[bytes]:
    """Yield the bytes of a transposed tensor in their order, a few megabytes at a time."""
    array = tensor.numpy().transpose(order)
    if tensor.dtype.bitwidth < 8 or array.ndim == 0:
        yield ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype).tobytes()
    else:
        rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows]).tobytes()
    del array
    _release(tensor)


def _release(tensor: ir.TensorProtocol) -> None:
    """Let go of the pages of a file; it is mapped again when it is read."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


class _TurnedTensor(ir.LazyTensor):
    """A tensor whose axes are put in another order whenever it is read."""

    __slots__ = ("order", "source")

    def __init__(self, source: ir.TensorProtocol, order: Sequence[int]) -> None:
        self.source, self.order = source, tuple(order)
        lengths = sizes(source)
        shape = ir.Shape([lengths[axis] for axis in self.order])
        super().__init__(self._turn, source.dtype, shape, name=source.name)

    def _turn(self) -> ir.TensorProtocol:
        array = np.ascontiguousarray(self.source.numpy().transpose(self.order))
        _release(self.source)
        return ir.Tensor(array, dtype=self.dtype, name=self.name)

    def tofile(self, file: object) -> None:
        """Write the bytes to a file."""
        for block in _turned_blocks(self.source, self.order):
            file.write(block)  # type: ignore[attr-defined]


class _ReshapedTensor(ir.LazyTensor):
    """The bytes of another tensor under a shape of its own."""

    __slots__ = ("source",)

    def __init__(self, source: ir.TensorProtocol, shape: Sequence[int]) -> None:
        self.source = source
        super().__init__(self._reshape, source.dtype, ir.Shape(shape), name=source.name)

    def _reshape(self) -> ir.TensorProtocol:
        array = self.source.numpy().reshape(self.shape.numpy())
        return ir.Tensor(array, dtype=self.dtype, name=self.name)

    def tofile(self, file: object) -> None:
        """Write the bytes to a file."""
        self.source.tofile(file)  # type: ignore[attr-defined]


def turned(tensor: ir.TensorProtocol, order: Sequence[int]) -> ir.TensorProtocol:
    """Return a stored tensor with its axes in another order; nothing is read until that is.

    Args:
        tensor: Of numbers.
        order: Of its axes, as Transpose takes it.
    """
    if isinstance(tensor, _TurnedTensor):
        order, tensor = [tensor.order[axis] for axis in order], tensor.source
    return tensor if list(order) == sorted(order) else _TurnedTensor(tensor, order)


def reshaped(tensor: ir.TensorProtocol, shape: Sequence[int]) -> ir.TensorProtocol:
    """Return a stored tensor under another shape of as many elements; nothing is read until that is."""
    return _ReshapedTensor(tensor, shape)
