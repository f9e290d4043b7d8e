"""What an array must be to be an input: its type, shape and ids; and how messages call a place in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.graph.signature import TEXT, InputSpec, shape_text

__all__ = [
    "cast",
    "check_ids",
    "check_shape",
    "check_something_is_read",
    "first_place",
    "is_mask",
    "named_sizes",
    "place_text",
    "sample_number",
]

Array = npt.NDArray[Any]


def named_sizes(arrays: Mapping[str, Array], specs: Mapping[str, InputSpec]) -> dict[object, int]:
    """Return the sizes of the axes that have a name; of several the last counts."""
    return {
        axis: size
        for name, array in arrays.items()
        for axis, size in zip(specs[name].shape or (), array.shape, strict=False)
        if isinstance(axis, str)
    }


def cast(array: Array, spec: InputSpec, where: str) -> Array:
    """Return an array in the type of its input: a cast keeps the kind, and integers their values."""
    wanted = spec.dtype
    if wanted is None or array.dtype == wanted:
        return array
    if wanted == TEXT:
        fits = array.dtype.kind in "UO"
    else:
        fits = np.can_cast(array.dtype, wanted, casting="same_kind")
    if not fits:
        kind = "text" if wanted == TEXT else str(wanted)
        raise InputError(f"{where}input {spec.name} has type {array.dtype}, the model takes {kind}")
    if wanted == TEXT:
        return array
    if wanted.kind in "iu" and array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        for value in (int(array.min()), int(array.max())):
            if not limits.min <= value <= limits.max:
                raise InputError(
                    f"{where}input {spec.name} holds {value}, the model takes {wanted}"
                )
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(wanted)


def check_shape(array: Array, spec: InputSpec, where: str) -> None:
    if spec.shape is not None:
        sizes = [(size, axis) for size, axis in zip(array.shape, spec.shape, strict=False)]
        fixed = all(size == axis for size, axis in sizes if isinstance(axis, int))
        if array.ndim != len(spec.shape) or not fixed:
            raise InputError(
                f"{where}input {spec.name} has shape {array.shape}, the model takes "
                f"{shape_text(spec.shape)}"
            )
    if 0 in array.shape:
        raise InputError(f"{where}input {spec.name} is empty: shape {array.shape}")


def check_ids(array: Array, spec: InputSpec, where: str, numbers: Sequence[int] | None) -> None:
    if spec.ids is None or array.dtype.kind not in "iu":
        return
    wrong = (array < 0) | (array >= spec.ids)
    if wrong.any():
        place = first_place(wrong)
        raise InputError(
            f"{where}input {spec.name}: {place_text(place, array, spec, (), numbers)} is "
            f"{array[place]}, the model takes ids from 0 to {spec.ids - 1}"
        )


def is_mask(spec: InputSpec) -> bool:
    """Tell whether an input is a mask over positions: by its name, of integers or booleans, and no table's ids."""
    flags = spec.dtype is not None and spec.dtype.kind in "biu" and spec.ids is None
    return flags and "mask" in spec.name


def sample_number(row: int, numbers: Sequence[int] | None) -> int:
    """Return what messages call a sample of a batch."""
    return row + 1 if numbers is None or row >= len(numbers) else numbers[row]


def first_place(wrong: Array) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(wrong)[0])


def place_text(
    place: tuple[int, ...],
    array: Array,
    spec: InputSpec,
    columns: Sequence[str],
    numbers: Sequence[int] | None,
) -> str:
    """Return where an element stands, counted from 1 as in a table."""
    if not place:
        return "it"
    sample = f"sample {sample_number(place[0], numbers)}"
    if len(place) == 1:
        return sample
    alone = array.shape[0] == 1 and numbers is None
    before = "" if alone else f"{sample}, "
    if len(place) == 2:
        is_position = array.dtype.kind in "iu" or (spec.shape or ("", ""))[1:] == ("sequence",)
        return f"{before}{'position' if is_position else 'column'} {place[1] + 1}"
    if len(place) == 3:
        named = len(columns) == array.shape[-1]
        column = repr(columns[place[2]]) if named else str(place[2] + 1)
        return f"{before}position {place[1] + 1}, column {column}"
    return f"{before}place {place[1:]}"


def check_something_is_read(
    arrays: Mapping[str, Array],
    specs: Mapping[str, InputSpec],
    where: str,
    numbers: Sequence[int] | None,
) -> None:
    """Refuse a sample of which a mask keeps nothing, or whose values are all missing."""
    for name, array in arrays.items():
        spec = specs[name]
        if array.ndim < 2:
            continue
        axes = tuple(range(1, array.ndim))
        if is_mask(spec):
            empty, problem = ~array.astype(bool).any(axis=axes), "keeps none of its positions"
        elif array.dtype.kind == "f":
            empty, problem = np.isnan(array).all(axis=axes), "is missing throughout"
        else:
            continue
        if empty.any():
            row = int(empty.argmax())
            raise InputError(
                f"{where}input {name}: sample {sample_number(row, numbers)} {problem}: there is nothing to "
                "calibrate on",
                hint="leave such samples out",
            )
