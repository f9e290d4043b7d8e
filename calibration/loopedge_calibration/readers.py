"""Where samples come from: files of arrays, arrays in memory, batches of a program."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from loopedge.data.text_files import SUFFIXES
from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.files.npy_format import ArchiveMember, most_bytes, open_archive
from loopedge.files.table_names import is_table
from loopedge.options import by_face, option
from loopedge.runtime.inputs import ModelInputs
from loopedge.tasks.task import Batch

__all__ = [
    "BATCH",
    "BatchesSource",
    "Feeds",
    "SampleBatch",
    "Source",
    "array_source",
    "data_files",
    "holds_arrays",
    "read_samples",
]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Feeds = Mapping[str, Array]
BATCH = 8
"""Samples that run together."""
ARRAYS = (".npz", ".npy")
MOST_SKIPPED = 1 << 20
"""Bytes of samples that were not chosen, read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch:
    """Samples that run together.

    Args:
        feeds: One array per input, the first axis the samples.
        numbers: The number of each sample in its source, from 1.
        source: The file that they come from.
        asked: The samples as the model's task gave them, with its targets.
        places: What messages call each sample, where that is known already.
    """

    feeds: Feeds
    numbers: tuple[int, ...]
    source: str | None = None
    asked: Batch | None = None
    places: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Return what messages call a sample of the batch: ``sample 3 of x.npz``."""
        if self.places:
            return self.places[min(row, len(self.places) - 1)]
        of = "" if self.source is None else f" of {self.source}"
        return f"sample {self.numbers[min(row, len(self.numbers) - 1)]}{of}"

    def rows(self, kept: npt.NDArray[np.bool_]) -> "SampleBatch":
        """Return some of the samples; what is one number for all of them, as a loop count, stays."""
        return replace(
            self,
            feeds={
                name: array[kept] if array.shape[:1] == kept.shape else array
                for name, array in self.feeds.items()
            },
            numbers=tuple(np.array(self.numbers)[kept].tolist()),
            asked=None if self.asked is None else self.asked.rows(kept),
        )


class Source(Protocol):
    """Samples that can be chosen by their place, as often as asked for.

    Attributes:
        notes: What a person should know of how they were read, a line each.
    """

    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """Places there are: samples, or batches that cannot be cut."""
        ...

    def read(self, chosen: Indices) -> Iterator[SampleBatch]:
        """Yield the samples at some places, which ascend."""
        ...


def holds_arrays(path: str | Path) -> bool:
    """Tell whether a path is an ``.npz`` or ``.npy``, or a folder of ``.npz``, and no file that a task reads."""
    source = Path(path)
    return source.suffix.lower() in ARRAYS or (source.is_dir() and any(source.glob("*.npz")))


def data_files(data: object) -> list[Path]:
    """Return the files that a path of samples stands for: of a folder the archives and texts in it."""
    if not isinstance(data, str | Path):
        return []
    path = Path(data)
    if not path.is_dir():
        return [path]
    texts = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [*path.glob("*.npz"), *texts]


def array_source(data: object, expected: ModelInputs, *, fixed: int | None) -> Source:
    """Return the source that data is.

    Args:
        data: ``.npz``, a folder of them, ``.npy`` or a CSV; an array for a model of one input; arrays by input;
            or an iterable of those, which is read into memory where it can be iterated once alone.
        expected: The inputs of the model.
        fixed: The batch size that the model fixes; None: any.

    Raises:
        InputError: A file is missing or cannot be used, or the data is of another kind.
    """
    if isinstance(data, str | Path):
        path = Path(data)
        if path.suffix.lower() == ".npy" or is_table(path):
            read = expected.read(path, seed=None)
            source = BatchesSource([read.arrays], fixed=fixed, size=BATCH, source=str(path))
            source.notes = read.notes
            return source
        return ArchiveSource(path, expected, fixed=fixed)
    if isinstance(data, np.ndarray):
        data = expected.name_array(data)
    if isinstance(data, Mapping):
        return BatchesSource([_arrays(data)], fixed=fixed, size=BATCH)
    if not isinstance(data, Iterable):
        raise _not_data(data)
    return BatchesSource([_arrays(batch) for batch in data], fixed=fixed)


def _arrays(batch: object) -> Feeds:
    if not isinstance(batch, Mapping):
        raise _not_data(batch)
    return {str(name): np.asarray(array) for name, array in batch.items()}


def _not_data(found: object) -> InputError:
    return InputError(
        f"the data holds {type(found).__name__}, a path, arrays by input or batches of them are needed",
        hint=by_face("--data samples.npz", 'data={"inputs": array}'),
    )


def read_samples(path: str | Path, expected: ModelInputs | None = None) -> Iterator[Feeds]:
    """Yield batches from an ``.npz``, or from every ``.npz`` of a folder in the order of names.

    Each array holds one input of the model, its first axis the samples. The arrays are read in
    pieces: memory does not grow with the number of samples, but for arrays in Fortran order.

    Args:
        path: File or folder.
        expected: The inputs of the model. With them the one array of a model of one input may have any name,
            and be an ``.npy`` or a CSV, which are read whole.

    Raises:
        InputError: The file is missing, is not an archive of arrays, or arrays differ in samples.
    """
    if expected is not None:
        source = array_source(path, expected, fixed=None)
    else:
        source = ArchiveSource(Path(path), None, fixed=None)
    for batch in source.read(np.arange(source.total)):
        yield batch.feeds


class BatchesSource:
    """Batches in memory.

    Args:
        batches: Arrays by input.
        fixed: The batch size that the model fixes; None: any.
        size: Most samples that run together; None: as the batches are.
        source: The file that they come from.
    """

    def __init__(
        self,
        batches: Sequence[Feeds],
        *,
        fixed: int | None = None,
        size: int | None = None,
        source: str | None = None,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self._batches, self._size, self._source = batches, size, source
        self._counts = [0 if _is_empty(batch) else _rows(batch) for batch in batches]
        self._whole = fixed is not None or any(count is None for count in self._counts)
        if self._whole and size is not None and fixed is not None and None not in self._counts:
            self._batches = [
                _cut(each, fixed, at) for each in batches for at in _starts(each, fixed)
            ]
            self._counts = [_rows(batch) for batch in self._batches]

    @property
    def total(self) -> int:
        """Samples, or batches where they cannot be cut."""
        if self._whole:
            return sum(count != 0 for count in self._counts)
        return sum(count or 0 for count in self._counts)

    def read(self, chosen: Indices) -> Iterator[SampleBatch]:
        """Yield the samples at some places, which ascend."""
        if self._whole:
            whole = [
                batch
                for batch, count in zip(self._batches, self._counts, strict=True)
                if count != 0
            ]
            for place in chosen.tolist():
                yield SampleBatch(feeds=whole[place], numbers=(place + 1,), source=self._source)
            return
        start = 0
        for batch, count in zip(self._batches, self._counts, strict=True):
            local = chosen[(chosen >= start) & (chosen < start + (count or 0))] - start
            for first in range(0, len(local), self._size or max(1, len(local))):
                rows = local[first : first + (self._size or len(local))]
                yield SampleBatch(
                    feeds={name: array[rows] for name, array in batch.items()},
                    numbers=tuple((rows + start + 1).tolist()),
                    source=self._source,
                )
            start += count or 0


def _is_empty(batch: Feeds) -> bool:
    return not batch or any(array.ndim and len(array) == 0 for array in batch.values())


def _rows(batch: Feeds) -> int | None:
    """Return the samples of a batch; None where its arrays have no axis of samples in common."""
    counts = {(*array.shape, None)[0] for array in batch.values()}
    return next(iter(counts)) if len(counts) == 1 else None


def _starts(batch: Feeds, size: int) -> range:
    return range(0, _rows(batch) or 0, size)


def _cut(batch: Feeds, size: int, start: int) -> Feeds:
    return {name: array[start : start + size] for name, array in batch.items()}


class ArchiveSource:
    """Arrays in an ``.npz``, or in every ``.npz`` of a folder: counted by their headers, read in pieces.

    Args:
        path: File or folder.
        expected: The inputs of the model: where there is one, an array without a name is its.
        fixed: The batch size that the model fixes; None: any.

    Raises:
        InputError: A file is missing, is not an archive of arrays, or arrays differ in samples.
    """

    def __init__(self, path: Path, expected: ModelInputs | None, *, fixed: int | None) -> None:
        self.notes: tuple[str, ...] = ()
        self._expected, self._group = expected, fixed or 1
        self._size = fixed or BATCH
        self._files = [path]
        if path.is_dir():
            self._files = sorted(path.glob("*.npz"))
            if not self._files:
                raise InputError(f"{path} holds no .npz file")
        hint = option("data", "samples.npz")
        self._counts = [
            self._count_rows(check_file(file, needed="an .npz file", hint=hint))
            for file in self._files
        ]

    @property
    def total(self) -> int:
        """Samples, or groups of them where the model fixes its batch."""
        return sum(map(self._places, self._counts))

    def _places(self, rows: int) -> int:
        return -(-rows // self._group)

    def read(self, chosen: Indices) -> Iterator[SampleBatch]:
        """Yield the samples at some places, which ascend.

        Raises:
            InputError: A file is damaged.
        """
        start = 0
        for file, count in zip(self._files, self._counts, strict=True):
            end = start + self._places(count)
            local = chosen[(chosen >= start) & (chosen < end)] - start
            start = end
            rows = (local[:, None] * self._group + np.arange(self._group)).ravel()
            if len(rows):
                yield from self._read_file(file, rows[rows < count])

    def _read_file(self, file: Path, rows: Indices) -> Iterator[SampleBatch]:
        with open_archive(file) as members:
            takes = {
                member.name: _whole(member) if self._is_setting(member) else _taker(member)
                for member in members
            }
            for first in range(0, len(rows), self._size):
                part = rows[first : first + self._size]
                feeds: Feeds = {name: take(part) for name, take in takes.items()}
                yield SampleBatch(
                    feeds=feeds if self._expected is None else self._expected.name_alone(feeds),
                    numbers=tuple((part + 1).tolist()),
                    source=str(file),
                )

    def _count_rows(self, path: Path) -> int:
        """Return the samples of an archive, as its headers say."""
        with open_archive(path) as archive:
            members = [member for member in archive if not self._is_setting(member)]
            if not members:
                raise InputError(f"{path} holds no array of samples")
            for member in members:
                if not member.header.shape:
                    raise InputError(f"{member.where} has no axis of samples")
            counts = {member.name: member.header.shape[0] for member in members}
            if len(set(counts.values())) > 1:
                raise InputError(f"{path}: the arrays differ in samples: {counts}")
            total = members[0].header.shape[0]
            rows = min(self._size, total)
            needed = sum(_bytes_at_once(member, rows) for member in members)
            if needed > (allowed := most_bytes(path)):
                raise InputError(
                    f"{path}: {rows} samples take {needed:,} bytes, at most {allowed:,} are "
                    "read at once from a file of its size"
                )
            return total

    def _is_setting(self, member: ArchiveMember) -> bool:
        """Tell one number that says how the model runs: no input of samples is called so."""
        known = self._expected is not None and member.name not in self._expected.specs
        return known and math.prod(member.header.shape) == 1


def _is_turned(member: ArchiveMember) -> bool:
    """Tell whether an array is stored column by column: its samples are spread over all of it."""
    return member.header.fortran and len(member.header.shape) > 1


def _bytes_at_once(member: ArchiveMember, rows: int) -> int:
    return member.header.nbytes if _is_turned(member) else rows * _sample_bytes(member)


def _sample_bytes(member: ArchiveMember) -> int:
    return math.prod(member.header.shape[1:]) * member.header.dtype.itemsize


def _whole(member: ArchiveMember) -> Callable[[Indices], Array]:
    """Return what gives all of an array for any samples."""
    array = member.array()
    return lambda _: array


def _taker(member: ArchiveMember) -> Callable[[Indices], Array]:
    """Return what reads some samples of an array, from front to back."""
    if _is_turned(member):
        whole: list[Array] = []

        def take_turned(rows: Indices) -> Array:
            whole[:] = whole or [member.array()]
            return np.ascontiguousarray(whole[0][rows])

        return take_turned
    position, width = 0, _sample_bytes(member)

    def take(rows: Indices) -> Array:
        nonlocal position
        content = bytearray()
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(rows, ends):
            while position < run[0]:  # a stream that is inflated cannot be wound forward
                step = min(int(run[0]) - position, max(1, MOST_SKIPPED // max(width, 1)))
                member.read(step * width)
                position += step
            content += member.read(len(run) * width)
            position += len(run)
        return np.frombuffer(bytes(content), member.header.dtype).reshape(
            len(rows), *member.header.shape[1:]
        )

    return take
