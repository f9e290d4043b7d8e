"""Along which axis of a value the positions lie, found by what it holds at several lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.errors import InputError

__all__ = ["agrees", "position_axis"]

Array = npt.NDArray[Any]

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""How far equal positions of two lengths may be apart: sines of large angles differ in their last bits."""


def position_axis(
    arrays: Sequence[Array], sizes: Sequence[int], value: ir.Value, reader: ir.Node
) -> int | None:
    """Return the axis along which an array differs from position to position; None: it holds the same for each.

    Raises:
        InputError: It depends on the length in another way.
    """
    shapes = {array.ndim for array in arrays}
    longest = arrays[-1]
    axes = [
        axis
        for axis in range(longest.ndim)
        if len(shapes) == 1
        if any(array.shape[axis] != longest.shape[axis] for array in arrays)
    ]
    if not axes and all(np.array_equal(array, longest) for array in arrays):
        return None
    what = f"{value.name}, which {reader.name} ({reader.op_type}) reads, depends on the length of the whole text"
    if not axes or len(shapes) > 1:
        raise InputError(f"{what}: it cannot be computed for a part of it")
    first = longest[
        tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(longest.ndim))
    ]
    if all(np.array_equal(array, np.broadcast_to(first, array.shape)) for array in arrays):
        return None
    (axis, *others) = axes
    if others:
        raise InputError(f"{what} along two axes, and is no mask of attention")
    for array, size in zip(arrays, sizes, strict=True):
        if array.shape[axis] != size or not agrees(array, np.take(longest, range(size), axis)):
            raise InputError(f"{what}: equal positions of longer texts hold something else")
    return axis


def agrees(found: Array, expected: Array) -> bool:
    """Tell whether values are equal, floats up to the last bits of what the larger ones make."""
    if not np.issubdtype(found.dtype, np.floating):
        return np.array_equal(found, expected)
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))
    return bool(np.allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE * scale, equal_nan=True))
