"""Stored values of equal content: found by hashes, and stored once."""

from collections.abc import Iterable

import onnx_ir as ir

from loopedge.graph.rolling.canonical_passes.tensors import beginning, digest, sizes

__all__ = ["Contents", "is_constant", "merge_equal"]


def is_constant(value: ir.Value | None) -> bool:
    """Tell whether a value is stored, and no caller of the model may overwrite it."""
    if value is None or value.const_value is None:
        return False
    return value.is_initializer() and not value.is_graph_input()


class Contents:
    """What tensors hold: each is hashed once; one that was is kept, for its identity is its key."""

    def __init__(self) -> None:
        self._digests: dict[int, tuple[ir.TensorProtocol, bytes]] = {}
        self._beginnings: dict[int, tuple[ir.TensorProtocol, bytes]] = {}

    def digest(self, tensor: ir.TensorProtocol) -> bytes:
        """Return the hash of what a tensor holds."""
        known = self._digests.get(id(tensor))
        if known is None:
            known = self._digests[id(tensor)] = (tensor, digest(tensor))
        return known[1]

    def beginning(self, tensor: ir.TensorProtocol) -> bytes:
        """Return the first numbers of a tensor: where they differ, it need not be hashed."""
        known = self._beginnings.get(id(tensor))
        if known is None:
            known = self._beginnings[id(tensor)] = (tensor, beginning(tensor))
        return known[1]

    def groups(self, values: Iterable[ir.Value]) -> list[list[ir.Value]]:
        """Group stored values of equal type, shape and content in their order; single ones are left out."""
        found = [[value for value in values if value.const_value is not None]]
        for key in (_kind, self.beginning, self.digest):
            alike: dict[tuple[int, object], list[ir.Value]] = {}
            for place, members in enumerate(found):
                for value in members:
                    assert value.const_value is not None
                    alike.setdefault((place, key(value.const_value)), []).append(value)
            found = [members for members in alike.values() if len(members) > 1]
        return found


def _kind(tensor: ir.TensorProtocol) -> tuple[object, ...]:
    return (tensor.dtype, *sizes(tensor))


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
