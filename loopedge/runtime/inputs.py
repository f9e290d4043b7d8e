"""What the inputs of a model must be, and what is filled in: the one check of whatever feeds a model.

`loopedge run`, `Session.run`, `profile --input`, `quantize --data` and calibration all ask `ModelInputs`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.data.tables.format import TableFormat
from loopedge.errors import InputError
from loopedge.files.arrays import ArrayFile, read_array_file
from loopedge.files.table_names import is_table
from loopedge.graph.metadata import Metadata
from loopedge.graph.signature import InputSpec
from loopedge.options import option, option_name
from loopedge.runtime.array_checks import (
    cast,
    check_ids,
    check_shape,
    check_something_is_read,
    first_place,
    named_sizes,
    place_text,
    sample_number,
)
from loopedge.runtime.tables.described_table import DescribedTable
from loopedge.runtime.tables.last_windows import LastWindows, read_last_windows
from loopedge.runtime.tables.number_tables import holds_columns, read_columns
from loopedge.runtime.tables.window_arrays import check_windows, pad_windows

__all__ = ["MASK", "AcceptedInputs", "ModelInputs"]

Array = npt.NDArray[Any]

MASK = "attention_mask"
UNNAMED = "arr_0"
"""What ``numpy.savez`` calls an array without a name."""

ARRAYS = frozenset({".npz", ".npy"})
"""Endings of files that hold arrays."""

TOKENS = frozenset({"text", "pairs"})
"""Tasks whose first input holds ids of a vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedInputs:
    """Arrays that a model takes as they are, and what a person should know of how they came about.

    Args:
        arrays: By input.
        notes: A line each.
        windows: The table that they come from, where the model was trained on one.
    """

    arrays: dict[str, Array]
    notes: tuple[str, ...] = ()
    windows: LastWindows | None = None


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
        return () if self.described is None else self.described.columns

    @property
    def described(self) -> DescribedTable | None:
        """The table that the model was trained on; None where it was none."""
        return DescribedTable.of(self.metadata.task)

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

    def read(
        self,
        source: str | Path,
        *,
        seed: int | None = 0,
        form: TableFormat | Mapping[str, Any] | None = None,
    ) -> AcceptedInputs:
        """Return the arrays of a file as the model takes them.

        Args:
            source: As `loopedge.files.arrays.read_array_file`; an array that was saved without a name is the one input
                that the model needs. For a model that was trained on a table what is no ``.npz`` or ``.npy`` is a
                table: the last window of each of its series, as `read_last_windows` says.
            seed: As `accept`.
            form: How a table is written down, or fields of that by name, which win over what the model remembers.

        Raises:
            InputError: As `accept`, or the file cannot be read.
        """
        if self.reads_table(source):
            return self._read_table(source, seed=seed, form=form)
        file = self._read_arrays(source, form)
        arrays = self.name_alone(file.arrays)
        notes = [
            f"the array {name} is taken as the input {self.needed[0]}"
            for name in file.arrays
            if name not in arrays
        ]
        if file.header is not None and any(array.ndim == 3 for array in arrays.values()):
            names = ", ".join(file.header)
            notes.append(
                f"the model names no columns: those of {source} are taken in their order, {names}"
            )
        feeds = self.accept(arrays, source=str(source), seed=seed)
        return replace(feeds, notes=(*notes, *feeds.notes))

    def _read_arrays(
        self, source: str | Path, form: TableFormat | Mapping[str, Any] | None
    ) -> ArrayFile:
        """Return the arrays of a file, or a table of numbers as one."""
        shapes = {name: self.specs[name].shape for name in self.needed}
        ranks = {name: 2 if shape is None else len(shape) for name, shape in shapes.items()}
        if form and not is_table(source):
            named = ", ".join(map(option_name, form)) if isinstance(form, Mapping) else "form"
            raise InputError(
                f"{named} is of tables, {source} is read as arrays", hint="leave it out"
            )
        written = form if isinstance(form, TableFormat) else TableFormat(**(form or {}))
        if len(ranks) == 1 and holds_columns(source):
            [(name, rank)] = ranks.items()
            return read_columns(source, name, rank=rank, form=written)
        return read_array_file(source, ranks, missing=self.metadata.missing_values, form=written)

    def reads_table(self, source: str | Path) -> bool:
        """Tell whether a file is read as a table: the model was trained on one, and the file holds no arrays."""
        is_table = Path(source).suffix.lower() not in ARRAYS
        return is_table and self.described is not None and len(self.needed) == 1

    def _read_table(
        self, source: str | Path, *, seed: int | None, form: TableFormat | Mapping[str, Any] | None
    ) -> AcceptedInputs:
        """Return the last window of each series of a table."""
        assert self.described is not None  # as `reads_table` says
        [name] = self.needed  # what is trained on a table takes one input, and perhaps a mask
        windows = read_last_windows(
            source, self.described, form=form, takes_mask=MASK in self.specs
        )
        given = {name: windows.inputs}
        if windows.mask is not None:
            given[MASK] = windows.mask
        feeds = self.accept(given, source=str(source), seed=seed)
        fed = replace(windows, inputs=feeds.arrays[name])
        return replace(feeds, notes=(*windows.notes, *feeds.notes), windows=fed)

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
        untrained: bool = False,
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
            untrained: Take windows of a table that training never saw as they are: a check that compares two files
                asks for no answer.

        Returns:
            One array per input in the model's types, but for the loop count and defaults that were left out.

        Raises:
            InputError: An input is missing or unknown, or has another type, shape or size; a number is not finite and
                stands for no missing value; an id is outside the vocabulary; a mask holds more than 0 and 1; a window of
                a table is shorter than those of training, or masked at its last position.
        """
        where = "" if source is None else f"{source}: "
        self._check_names(given, where, source)
        arrays: dict[str, Array] = {}
        for name, array in given.items():
            spec = self.specs[name]
            arrays[name] = cast(array, spec, where)
            check_shape(arrays[name], spec, where)
            if calibrates or not self.metadata.foreign_inputs:
                self._check_finite(arrays[name], array, spec, where, numbers)
            check_ids(arrays[name], spec, where, numbers)
        notes = self._fill_mask(arrays, source)
        self._fill_tolerance(arrays)
        if seed is not None:
            self._fill_noise(arrays, seed)
        missing = next((name for name in self._demanded(seed) if name not in arrays), None)
        if missing is not None:
            raise InputError(f"{where}input {missing} is missing; {self._takes(given, source)}")
        self._check_lengths(arrays, where)
        self._check_mask(arrays, where, numbers)
        if not untrained:
            self._take_windows(arrays, where, numbers)
        if calibrates:
            check_something_is_read(arrays, self.specs, where, numbers)
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
        place = first_place(wrong)
        allowed = f"finite numbers of {array.dtype}{' and missing values' if missing else ''}"
        raise InputError(
            f"{where}input {spec.name}: {place_text(place, array, spec, self.columns, numbers)} is "
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
        if self.described is not None:
            arrays[name] = pad_windows(values, self.described)
        padded = arrays[name].shape[1] - length
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

    def _take_windows(
        self, arrays: dict[str, Array], where: str, numbers: Sequence[int] | None
    ) -> None:
        """Refuse windows of a table that training never saw, and pad those that came with their mask."""
        described, name = self.described, next(iter(self.needed), None)
        if described is None or name is None or arrays[name].ndim != 3:
            return
        mask, names = arrays.get(MASK), (name, MASK, self.path)
        check_windows(arrays[name], mask, described, where, numbers, names=names)
        if mask is not None:
            arrays[name] = pad_windows(arrays[name], described)
            arrays[MASK] = np.pad(mask, ((0, 0), (arrays[name].shape[1] - mask.shape[1], 0)))

    def _fill_tolerance(self, arrays: dict[str, Array]) -> None:
        for name, spec in self.specs.items():
            if self._is_tolerance(spec) and not spec.has_default and name not in arrays:
                arrays[name] = np.array(self.metadata.tolerance, np.float32)

    def _fill_noise(self, arrays: dict[str, Array], seed: int) -> None:
        """Draw the inputs that hold noise and were left out, in the sizes of those that are there."""
        noise = self.metadata.random_inputs
        sizes = named_sizes(arrays, self.specs)
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
            place = first_place((mask < 0) | (mask > 1))
            raise InputError(
                f"{where}input {MASK}: sample {sample_number(place[0], numbers)}, position {place[1] + 1} is {mask[place]}, "
                "a mask holds 1 where a position is kept and 0 where it is not"
            )
        others = {name: array for name, array in arrays.items() if name != MASK}
        sizes = named_sizes(others, self.specs)
        masked = tuple(
            sizes.get(axis, size)
            for axis, size in zip(self.specs[MASK].shape or (), mask.shape, strict=False)
        )
        if mask.shape != masked:
            raise InputError(
                f"{where}input {MASK} has shape {mask.shape}, the positions that it masks {masked}"
            )


def _missing_hint() -> str:
    train = option("missing", "indicator", command="train series ...")
    return f"fill missing values first, or {train}"
