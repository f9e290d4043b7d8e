"""What the inputs of a model must be, and what is filled in: the one check of whatever feeds a model.

`loopedge run`, `Session.run`, `profile --input`, `quantize --data` and calibration all ask `ModelInputs`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.data.description import TABLES
from loopedge.errors import InputError
from loopedge.files.arrays import read_array_file
from loopedge.graph.metadata import Metadata
from loopedge.graph.signature import TEXT, InputSpec, shape_text
from loopedge.options import option

__all__ = ["MASK", "AcceptedInputs", "ModelInputs", "is_mask"]

Array = npt.NDArray[Any]

MASK = "attention_mask"
UNNAMED = "arr_0"
"""What ``numpy.savez`` calls an array without a name."""

TOKENS = frozenset({"text", "pairs"})
"""Tasks whose first input holds ids of a vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedInputs:
    """Arrays that a model takes as they are, and what a person should know of how they came about."""

    arrays: dict[str, Array]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """The inputs of a model.

    Args:
        path: The model's file, for messages.
        specs: Its inputs by name, in their order.
        metadata: What the file says of itself. A model that loopedge did not write is checked by names, types
            and shapes alone, and nothing is filled in.
    """

    path: str
    specs: dict[str, InputSpec]
    metadata: Metadata

    @classmethod
    def of(cls, path: str | Path, specs: Iterable[InputSpec], metadata: Metadata) -> "ModelInputs":
        """Return the inputs of a model; ids that its task names the vocabulary of are held to it."""
        task = metadata.task
        found = {spec.name: spec for spec in specs}
        first = next(iter(found), None)
        if first is not None and task.get("name") in TOKENS and task.get("vocab_size"):
            dtype, ids = found[first].dtype, found[first].ids
            if ids is None and dtype is not None and dtype.kind in "iu":
                found[first] = replace(found[first], ids=int(task["vocab_size"]))
        return cls(path=str(path), specs=found, metadata=metadata)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the model was trained on, in their order; none where no table was."""
        task = self.metadata.task
        if task.get("name") not in TABLES:
            return ()
        targets = [task["target"]] if "target" in task else task.get("targets", [])  # 0.1: one
        return (*targets, *task["covariates"])

    @property
    def needed(self) -> tuple[str, ...]:
        """The inputs that are never filled in: no loop count, no tolerance, no noise, no mask, none with a default."""
        filled: set[str] = set()
        if not self.metadata.foreign_inputs:
            filled = {MASK, *self.metadata.random_inputs}
        return tuple(name for name in self.sampled if name not in filled)

    @property
    def sampled(self) -> tuple[str, ...]:
        """The inputs that hold samples: none that has a default or chooses how the model runs."""
        return tuple(
            name
            for name, spec in self.specs.items()
            if not (spec.has_default or spec.chooses_loops or self._is_tolerance(spec))
        )

    def _is_tolerance(self, spec: InputSpec) -> bool:
        return spec.is_tolerance and self.metadata.tolerance is not None

    def name_array(self, array: Array) -> dict[str, Array]:
        """Return the array of a model of one input by its name.

        Raises:
            InputError: The model needs several arrays, or none.
        """
        if len(self.needed) != 1:
            raise InputError(
                f"one array does not feed {self.path}, which takes {', '.join(self.specs)}",
                hint="name each array: {'inputs': array}",
            )
        return {self.needed[0]: array}

    def read(self, source: str | Path, *, seed: int | None = 0) -> AcceptedInputs:
        """Return the arrays of a file as the model takes them.

        Args:
            source: As `loopedge.files.arrays.read_array_file`. A CSV's columns are taken by the names of those that the
                model was trained on; an array that was saved without a name is the one input that the model needs.
            seed: As `accept`.

        Raises:
            InputError: As `accept`, or the file cannot be read.
        """
        shapes = {name: self.specs[name].shape for name in self.needed}
        file = read_array_file(
            source,
            {name: 2 if shape is None else len(shape) for name, shape in shapes.items()},
            missing=self.metadata.missing_values,
            columns=self.columns,
        )
        arrays = self.name_alone(file.arrays)
        notes = [
            f"the array {name} is taken as the input {self.needed[0]}"
            for name in file.arrays
            if name not in arrays
        ]
        if file.dropped:
            names = ", ".join(map(repr, file.dropped))
            notes.append(f"columns that the model was not trained on are left out: {names}")
        feeds = self.accept(arrays, source=str(source), seed=seed)
        return replace(feeds, notes=(*notes, *feeds.notes))

    def name_alone(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Give the one array of a file the name of the one input, where it was saved without a name."""
        if len(self.needed) == 1 and arrays.keys() == {UNNAMED} and UNNAMED not in self.specs:
            return {self.needed[0]: next(iter(arrays.values()))}
        return dict(arrays)

    def accept(
        self,
        given: Mapping[str, Array],
        *,
        source: str | None = None,
        seed: int | None = 0,
        numbers: Sequence[int] | None = None,
        calibrates: bool = False,
    ) -> AcceptedInputs:
        """Check arrays, and fill in what is missing: the mask, padding, noise, the exported tolerance.

        A window of fewer positions than the task's context is padded on the left and masked there, as
        in training: a learned position is that of a position before the last one.

        Args:
            given: Arrays by name. They are not changed; one that fits is returned as it is.
            source: File that they come from, for messages.
            seed: Of the noise that is drawn: ``default_rng(seed).standard_normal(shape)`` times the standard
                deviation that the model was trained with, input after input; None leaves noise out.
            numbers: What messages call each sample; default: from 1.
            calibrates: The samples stand for all that the model will see: a model that loopedge did not write
                is held to finite numbers too, and no sample is masked throughout or misses all its values.

        Returns:
            One array per input in the model's types, but for the loop count and defaults that were left out.

        Raises:
            InputError: An input is missing or unknown, or has another type, shape or size; a number is not finite and
                stands for no missing value; an id is outside the vocabulary; a mask holds more than 0 and 1.
        """
        where = "" if source is None else f"{source}: "
        self._check_names(given, where, source)
        arrays: dict[str, Array] = {}
        for name, array in given.items():
            spec = self.specs[name]
            arrays[name] = _cast(array, spec, where)
            _check_shape(arrays[name], spec, where)
            if calibrates or not self.metadata.foreign_inputs:
                self._check_finite(arrays[name], array, spec, where, numbers)
            _check_ids(arrays[name], spec, where, numbers)
        notes = self._fill_mask(arrays, source)
        self._fill_tolerance(arrays)
        if seed is not None:
            self._fill_noise(arrays, seed)
        missing = next((name for name in self._demanded(seed) if name not in arrays), None)
        if missing is not None:
            raise InputError(f"{where}input {missing} is missing; {self._takes(given, source)}")
        self._check_lengths(arrays, where)
        self._check_mask(arrays, where, numbers)
        if calibrates:
            self._check_something_is_read(arrays, where, numbers)
        ordered = {name: arrays[name] for name in self.specs if name in arrays}
        return AcceptedInputs(arrays=ordered, notes=tuple(notes))

    def _demanded(self, seed: int | None) -> list[str]:
        noise = () if seed is not None else self.metadata.random_inputs
        return [name for name in self.sampled if name not in noise]

    def _check_names(self, given: Mapping[str, Array], where: str, source: str | None) -> None:
        unknown = next((name for name in given if name not in self.specs), None)
        if unknown is None:
            return
        missing = next((name for name in self.needed if name not in given), None)
        wrong = f"no input {unknown}" if missing is None else f"input {missing} is missing"
        raise InputError(f"{where}{wrong}; {self._takes(given, source)}")

    def _takes(self, given: Mapping[str, Array], source: str | None) -> str:
        held = "" if source is None else f", the file holds {', '.join(given) or 'nothing'}"
        return f"the model takes {', '.join(self.specs)}{held}"

    def _check_finite(
        self,
        array: Array,
        given: Array,
        spec: InputSpec,
        where: str,
        numbers: Sequence[int] | None,
    ) -> None:
        """Refuse numbers that a model turns into no answer; NaN passes where it means a missing value."""
        if array.dtype.kind != "f":
            return
        missing = self.metadata.missing_values
        wrong = np.isinf(array) if missing else ~np.isfinite(array)
        if not wrong.any():
            return
        place = _first(wrong)
        allowed = f"finite numbers of {array.dtype}{' and missing values' if missing else ''}"
        raise InputError(
            f"{where}input {spec.name}: {_place(place, array, spec, self.columns, numbers)} is "
            f"{given[place]:g}, the model takes {allowed}",
            hint=_missing_hint() if np.isnan(array[place]) else None,
        )

    def _fill_mask(self, arrays: dict[str, Array], source: str | None) -> list[str]:
        """Add the mask that a model takes and its inputs lack; return what a person should know of it."""
        if self.metadata.foreign_inputs or MASK not in self.specs or MASK in arrays:
            return []
        name = next((name for name in self.specs if name in arrays), None)
        if name is None or arrays[name].ndim < 2:
            return []
        values = arrays[name]
        batch, length = values.shape[:2]
        padded, task = 0, self.metadata.task
        if self.columns and values.shape[2:] == (len(task["mean"]),):
            padded = max(task["context"] - length, 0)
            mean = np.asarray(task["mean"], values.dtype)  # what training pads with
            padding = np.broadcast_to(mean, (batch, padded, len(mean)))
            arrays[name] = np.concatenate([padding, values], axis=1)
        kept = np.arange(padded + length) >= padded
        dtype = self.specs[MASK].dtype or np.dtype(np.int64)
        arrays[MASK] = np.broadcast_to(kept, (batch, padded + length)).astype(dtype)
        notes = [
            f"{'the input' if source is None else 'the file'} holds no {MASK}: every position is kept"
        ]
        if padded:
            notes.append(
                f"{length} positions are padded on the left to the context of {padded + length} positions"
            )
        return notes

    def _fill_tolerance(self, arrays: dict[str, Array]) -> None:
        for name, spec in self.specs.items():
            if self._is_tolerance(spec) and not spec.has_default and name not in arrays:
                arrays[name] = np.array(self.metadata.tolerance, np.float32)

    def _fill_noise(self, arrays: dict[str, Array], seed: int) -> None:
        """Draw the inputs that hold noise and were left out, in the sizes of those that are there."""
        noise = self.metadata.random_inputs
        sizes = _sizes(arrays, self.specs)
        generator = np.random.default_rng(seed)
        for name, deviation in noise.items():
            if name in arrays or name not in self.specs:
                continue
            spec = self.specs[name]
            shape = [sizes.get(axis, axis) for axis in spec.shape or ()]
            if not all(isinstance(size, int) for size in shape):
                raise InputError(f"input {name} is missing, and no other input tells its shape")
            drawn = generator.standard_normal(shape) * deviation  # type: ignore[arg-type]
            arrays[name] = drawn.astype(spec.dtype or np.float32)

    def fewest_positions(self, arrays: Mapping[str, Array]) -> int | None:
        """Return how many positions the sample with the fewest of them has, those that are masked left out.

        None where no input has positions.
        """
        sizes = [
            size
            for name, array in arrays.items()
            for size, axis in zip(array.shape, self.specs[name].shape or (), strict=False)
            if axis == "sequence"
        ]
        if not sizes:
            return None
        mask = None if self.metadata.foreign_inputs else arrays.get(MASK)
        if mask is not None and mask.ndim == 2 and mask.shape[1] == sizes[0]:
            return int(mask.astype(bool).sum(axis=1).min())
        return int(sizes[0])

    def _check_lengths(self, arrays: Mapping[str, Array], where: str) -> None:
        longest = self.metadata.max_length
        for name, array in arrays.items():
            for size, axis in zip(array.shape, self.specs[name].shape or (), strict=False):
                if longest is not None and axis == "sequence" and size > longest:
                    raise InputError(
                        f"{where}input {name} has {size} positions, {self.path} takes at most {longest}",
                        hint=f"name {longest} positions at most: of a series, the newest table rows",
                    )

    def _check_something_is_read(
        self, arrays: Mapping[str, Array], where: str, numbers: Sequence[int] | None
    ) -> None:
        """Refuse a sample of which a mask keeps nothing, or whose values are all missing."""
        for name, array in arrays.items():
            spec = self.specs[name]
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
                    f"{where}input {name}: sample {_number(row, numbers)} {problem}: there is nothing to "
                    "calibrate on",
                    hint="leave such samples out",
                )

    def _check_mask(
        self, arrays: Mapping[str, Array], where: str, numbers: Sequence[int] | None
    ) -> None:
        """Hold a mask to 0 and 1, and to the sizes of what it masks."""
        mask = arrays.get(MASK)
        if (
            self.metadata.foreign_inputs
            or mask is None
            or mask.ndim != 2
            or mask.dtype.kind not in "biu"
        ):
            return
        if mask.dtype.kind != "b" and ((mask < 0) | (mask > 1)).any():
            place = _first((mask < 0) | (mask > 1))
            raise InputError(
                f"{where}input {MASK}: sample {_number(place[0], numbers)}, position {place[1] + 1} is {mask[place]}, "
                "a mask holds 1 where a position is kept and 0 where it is not"
            )
        others = {name: array for name, array in arrays.items() if name != MASK}
        sizes = _sizes(others, self.specs)
        masked = tuple(
            sizes.get(axis, size)
            for axis, size in zip(self.specs[MASK].shape or (), mask.shape, strict=False)
        )
        if mask.shape != masked:
            raise InputError(
                f"{where}input {MASK} has shape {mask.shape}, the positions that it masks {masked}"
            )


def _sizes(arrays: Mapping[str, Array], specs: Mapping[str, InputSpec]) -> dict[object, int]:
    """Return the sizes of the axes that have a name; of several the last counts."""
    return {
        axis: size
        for name, array in arrays.items()
        for axis, size in zip(specs[name].shape or (), array.shape, strict=False)
        if isinstance(axis, str)
    }


def _cast(array: Array, spec: InputSpec, where: str) -> Array:
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


def _check_shape(array: Array, spec: InputSpec, where: str) -> None:
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


def _check_ids(array: Array, spec: InputSpec, where: str, numbers: Sequence[int] | None) -> None:
    if spec.ids is None or array.dtype.kind not in "iu":
        return
    wrong = (array < 0) | (array >= spec.ids)
    if wrong.any():
        place = _first(wrong)
        raise InputError(
            f"{where}input {spec.name}: {_place(place, array, spec, (), numbers)} is "
            f"{array[place]}, the model takes ids from 0 to {spec.ids - 1}"
        )


def is_mask(spec: InputSpec) -> bool:
    """Tell whether an input is a mask over positions: by its name, of integers or booleans, and no table's ids."""
    flags = spec.dtype is not None and spec.dtype.kind in "biu" and spec.ids is None
    return flags and "mask" in spec.name


def _number(row: int, numbers: Sequence[int] | None) -> int:
    """Return what messages call a sample of a batch."""
    return row + 1 if numbers is None or row >= len(numbers) else numbers[row]


def _missing_hint() -> str:
    train = option("missing", "indicator", command="train series ...")
    return f"fill missing values first, or {train}"


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(wrong)[0])


def _place(
    place: tuple[int, ...],
    array: Array,
    spec: InputSpec,
    columns: Sequence[str],
    numbers: Sequence[int] | None,
) -> str:
    """Return where an element stands, counted from 1 as in a table."""
    if not place:
        return "it"
    sample = f"sample {_number(place[0], numbers)}"
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
