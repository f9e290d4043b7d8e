"""Weights that stay where they are stored until they are written: read by rows, turned and rounded one at a time."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["LazyWeight", "RowSource"]

Array = npt.NDArray[np.float32]


class RowSource(Protocol):
    """A stored tensor of float32 values, read by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    def chunks(self) -> Iterator[tuple[int, Array]]:
        """Yield all rows in parts that fit into memory many times, each with its first row."""
        ...


class LazyWeight(ir.LazyTensor):
    """A weight of a graph that is read from its source each time that its values are asked for; none is kept.

    Args:
        source: Where the values stand.
        name: Of the weight.
        turned: Whether the weight is the transpose of what is stored.
        dtype: float32, or float16, to which the values are rounded.
        rounds: Whether `loopedge.graph.passes.storage.store_float16` may round it.
    """

    def __init__(
        self,
        source: RowSource,
        *,
        name: str | None,
        turned: bool = False,
        dtype: ir.DataType = ir.DataType.FLOAT,
        rounds: bool = True,
    ) -> None:
        self.source, self.is_turned, self.rounds = source, turned, rounds
        shape = source.shape[::-1] if turned else source.shape
        super().__init__(self._read, dtype, ir.Shape(shape), name=name)

    def turned(self) -> "LazyWeight":
        """Return its transpose."""
        return LazyWeight(
            self.source,
            name=self.name,
            turned=not self.is_turned,
            dtype=self.dtype,
            rounds=self.rounds,
        )

    def rounded(self) -> "LazyWeight":
        """Return the same rounded to float16."""
        return LazyWeight(
            self.source, name=self.name, turned=self.is_turned, dtype=ir.DataType.FLOAT16
        )

    def _read(self) -> ir.TensorProtocol:
        array: npt.NDArray[Any] = np.empty(self.shape.numpy(), self.dtype.numpy())
        into = array.T if self.is_turned else array
        with np.errstate(over="ignore", under="ignore"):
            for start, values in self.source.chunks():
                if into.ndim:
                    into[start : start + len(values)] = values
                else:
                    into[...] = values
        return ir.tensor(array, name=self.name)
