"""Leave attributes out of a file in ORT format that older releases do not know and that hold their default.

ONNX Runtime writes every attribute of an operator, those too that were not set. A release that does not know
one refuses the file, although what it would compute is the same.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loopedge.artifact.reading.ort_format import GRAPH, stored_graph

__all__ = ["NEW_DEFAULTS", "leave_out_defaults"]

NEW_DEFAULTS = {("com.microsoft", "MatMulNBits", "weight_prepacked"): 0}
"""By domain, operator and attribute, the default of what a release brought: 1.28 this one."""

ATTRIBUTES = 24
"""Place of a node's list of attributes in its table of fields: the eleventh field of ONNX Runtime's schema."""


def leave_out_defaults(path: Path) -> int:
    """Take `NEW_DEFAULTS` out of a file that was written a moment ago, in place; it keeps its length.

    Returns:
        How many attributes were taken out.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as buffer:
        found = [place for node in _nodes(stored_graph(buffer)) for place in _places(node)]
        for vector, index in sorted(found, reverse=True):
            _remove(buffer, vector, index)
        buffer.flush()
    return len(found)


def _nodes(graph: Any) -> Iterator[Any]:
    for node in (graph.Nodes(i) for i in range(graph.NodesLength())):
        yield node
        for attribute in (node.Attributes(i) for i in range(node.AttributesLength())):
            if attribute.Type() == GRAPH:
                yield from _nodes(attribute.G())


def _places(node: Any) -> Iterator[tuple[int, int]]:
    """Yield where the list of a node's attributes starts, and the place in it of each that is to go."""
    operator = tuple((text or b"").decode() for text in (node.Domain(), node.OpType()))
    for index in range(node.AttributesLength()):
        attribute = node.Attributes(index)
        default = NEW_DEFAULTS.get((*operator, attribute.Name().decode()))
        if default is not None and attribute.I() == default:
            start = node._tab.Vector(node._tab.Offset(ATTRIBUTES))
            if node._tab.Indirect(start + 4 * index) != attribute._tab.Pos:
                raise ValueError("ONNX Runtime lists the attributes of a node elsewhere")
            yield start, index


def _remove(buffer: mmap.mmap, start: int, index: int) -> None:
    """Take an entry out of a list of offsets, each from its own place: the following ones move up."""
    (length,) = struct.unpack_from("<I", buffer, start - 4)
    for place in range(start + 4 * index, start + 4 * (length - 1), 4):
        (offset,) = struct.unpack_from("<I", buffer, place + 4)
        struct.pack_into("<I", buffer, place, offset + 4)
    struct.pack_into("<I", buffer, start - 4, length - 1)
