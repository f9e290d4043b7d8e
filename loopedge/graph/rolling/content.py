"""What stored tensors hold, told apart by hashes that are streamed: no two large ones are ever in memory."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

__all__ = ["Contents", "is_constant", "merge_equal", "sizes", "turned_digest"]

BLOCK_BYTES = 4 << 20


def sizes(tensor: ir.TensorProtocol) -> list[int]:
    """Return the shape of a stored tensor."""
    return [int(size) for size in tensor.shape]  # type: ignore[arg-type]


def is_constant(value: ir.Value | None) -> bool:
    """Tell whether a value is stored, and no caller of the model may overwrite it."""
    if value is None or value.const_value is None:
        return False
    return value.is_initializer() and not value.is_graph_input()


class _Sink:
    """A file that keeps the hash of what is written to it alone."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self.hash.update(data)
        return len(data)


class Contents:
    """Hashes of tensors, each computed once; a tensor that was hashed is kept, for its identity is its key."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ir.TensorProtocol, bytes]] = {}

    def digest(self, tensor: ir.TensorProtocol) -> bytes:
        """Return the hash of what a tensor holds."""
        known = self._known.get(id(tensor))
        if known is None:
            known = self._known[id(tensor)] = (tensor, _digest(tensor))
        return known[1]

    def groups(self, values: Iterable[ir.Value]) -> list[list[ir.Value]]:
        """Group stored values of equal type, shape and content, in the order of the first; single ones are left out."""
        alike: dict[tuple[object, ...], list[ir.Value]] = {}
        for value in values:
            tensor = value.const_value
            if tensor is not None:
                alike.setdefault((tensor.dtype, tuple(tensor.shape)), []).append(value)
        found: dict[tuple[object, ...], list[ir.Value]] = {}
        for kind, members in alike.items():
            if len(members) > 1:
                for value in members:
                    assert value.const_value is not None
                    found.setdefault((kind, self.digest(value.const_value)), []).append(value)
        return [members for members in found.values() if len(members) > 1]


def _digest(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        parts = [bytes(part) for part in tensor.string_data()]  # type: ignore[attr-defined]
        return hashlib.sha256(repr(parts).encode()).digest()
    sink = _Sink()
    tensor.tofile(sink)  # type: ignore[attr-defined]
    return sink.hash.digest()


def turned_digest(tensor: ir.TensorProtocol, order: Sequence[int]) -> bytes:
    """Return the hash of what a tensor holds when its axes are put in another order.

    Args:
        tensor: A stored tensor of numbers.
        order: Of its axes, as Transpose takes it.
    """
    sink = _Sink()
    for block in turned_blocks(tensor, order):
        sink.write(block)
    return sink.hash.digest()


def turned_blocks(tensor: ir.TensorProtocol, order: Sequence[int]) -> Iterator[bytes]:
    """Yield the bytes of a transposed tensor in their order, a few megabytes at a time."""
    array = tensor.numpy().transpose(order)
    if tensor.dtype.bitwidth < 8:
        yield ir.tensor(np.ascontiguousarray(array), dtype=tensor.dtype).tobytes()
    elif array.ndim == 0:
        yield array.tobytes()
    else:
        rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), rows):
            yield np.ascontiguousarray(array[start : start + rows]).tobytes()
    del array
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


def merge_equal(graph: ir.Graph, contents: Contents) -> bool:
    """Let what reads equal stored values read the first of them, in place.

    Args:
        graph: The main graph.
        contents: The hashes so far.

    Returns:
        Whether anything changed.
    """
    changed = False
    for first, *copies in contents.groups(filter(is_constant, graph.initializers.values())):
        for copy in copies:
            if copy.is_graph_output():
                continue
            ir.convenience.replace_all_uses_with(copy, first)
            assert copy.name is not None
            del graph.initializers[copy.name]
            changed = True
    return changed
