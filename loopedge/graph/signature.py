"""What a graph says of one of its inputs: plain values, without onnx."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopedge.graph.metadata import LOOPS_INPUT, TOLERANCE_INPUT

__all__ = ["NUMPY_KINDS", "TEXT", "Axis", "InputSpec", "shape_text"]

Axis = int | str | None
"""A size, the name of one that may vary, or neither."""

NUMPY_KINDS = "biuf"
"""Types of numpy's own; ONNX Runtime takes the others (bfloat16, float8, int4) from no array."""
TEXT = np.dtype(np.str_)
"""Stands for a tensor of strings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What the array of an input must be.

    Args:
        name: Of the input.
        dtype: Of its elements, `TEXT` for strings; None where numpy has no such type or it is not known.
        shape: Of the array; None where not even the number of axes is known.
        has_default: Whether the graph stores a value for it, so that it may be left out.
        ids: How many rows the table has that its elements select from, where it is known.
        is_trip_count: Whether the graph takes it as the trip count of a Loop, whatever it is called.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Axis, ...] | None
    has_default: bool = False
    ids: int | None = None
    is_trip_count: bool = False

    @property
    def chooses_loops(self) -> bool:
        """Whether it is the loop count: int64 () called ``loops``, or what ends a Loop; any other ``loops`` is data."""
        return self.is_trip_count or (
            self.name == LOOPS_INPUT and self.dtype == np.int64 and self.shape == ()
        )

    def loop_count(self, loops: int) -> NDArray[Any]:
        """Return a loop count as the array that the input takes, () or (1,)."""
        counts: NDArray[Any] = np.array(loops, self.dtype or np.dtype(np.int64))
        return counts.reshape((1,) if self.shape else ())

    @property
    def is_tolerance(self) -> bool:
        """Whether it is, in an artifact whose loop a tolerance ends, that tolerance: float32 () of that name."""
        return self.name == TOLERANCE_INPUT and self.dtype == np.float32 and self.shape == ()


def shape_text(shape: tuple[Axis, ...] | None) -> str:
    """Return a shape for people: ``(batch, sequence, 2)``."""
    if shape is None:
        return "(of any rank)"
    return "(" + ", ".join("?" if axis is None else str(axis) for axis in shape) + ")"
