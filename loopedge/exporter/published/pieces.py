"""Which stored tensors stand in which initializers of a graph, and how: whole or joined, turned, rounded, packed."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.graph.decoding.fusing.products import JoinedTensor
from loopedge.graph.integer_weights.blocks import Blocks
from loopedge.graph.lazy_weights import LazyWeight

__all__ = ["Piece", "pieces_of"]

Array = npt.NDArray[Any]

SCALE = ".scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One stored tensor in an initializer.

    Args:
        name: Of the parameter.
        weight: The initializer.
        start: Where its rows, as they are stored, begin in the initializer.
        rows: How many there are.
        turned: Whether they are columns there.
        packed: In 8 or 4 bits, or int8 rows: ``scale`` is the initializer of the scales.
        scale: Its name; its rows are those of the weight.
    """

    name: str
    weight: str
    start: int
    rows: int
    turned: bool = False
    packed: bool = False
    scale: str | None = None

    def parts(self, graph: ir.Graph, values: int, step: int, bits: int | None) -> Iterator[Array]:
        """Yield the rows as a graph holds them, some at a time.

        Args:
            graph: That of the file.
            values: Of a row.
            step: Rows at once.
            bits: Of a packed weight.
        """
        array = _numpy(graph, self.weight)
        array = array.T if self.turned else array
        for first in range(self.start, self.start + self.rows, step):
            some = slice(first, min(first + step, self.start + self.rows))
            if self.scale is None:
                yield array[some].reshape(-1, values)
                continue
            scales = _numpy(graph, self.scale)[some]
            if array.dtype == np.int8:  # rows of an embedding
                yield array[some] * scales
            else:
                yield Blocks(array[some], scales, bits or 8, values).floats()


def pieces_of(graph: ir.Graph, names: Collection[str]) -> list[Piece]:
    """Return the pieces of all parameters that a graph holds, before it is written.

    Args:
        graph: Its tensors are those that are to be written.
        names: Of the parameters.
    """
    found = []
    scales = {
        part.name: value.name
        for value in graph.initializers.values()
        for part in _parts(value.const_value)
        if (part.name or "").endswith(SCALE)
    }
    for value in graph.initializers.values():
        start = 0
        for part in _parts(value.const_value):
            turned = isinstance(part, LazyWeight) and part.is_turned
            shape = [int(size) for size in part.shape]  # type: ignore[arg-type]
            rows = 1 if not shape else shape[-1] if turned else shape[0]
            name = part.name or ""
            if name in names:
                packed = part.dtype in {ir.DataType.UINT8, ir.DataType.INT8}
                found.append(
                    Piece(
                        name=name,
                        weight=value.name or "",
                        start=start,
                        rows=rows,
                        turned=turned,
                        packed=packed,
                        scale=scales.get(f"{name}{SCALE}") if packed else None,
                    )
                )
            start += rows
    return found


def _parts(tensor: ir.TensorProtocol | None) -> tuple[ir.TensorProtocol, ...]:
    if tensor is None:
        return ()
    return tensor.parts if isinstance(tensor, JoinedTensor) else (tensor,)


def _numpy(graph: ir.Graph, name: str) -> Array:
    tensor = graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()
