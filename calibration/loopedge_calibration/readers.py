"""Samples for calibration: a file or folder of arrays, a task of the trainer, or any iterable."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from loopedge.artifact.companions import read_companions
from loopedge.data.text_files import SUFFIXES
from loopedge.errors import InputError
from loopedge.files.input_files import check_file
from loopedge.files.npy_format import ArchiveMember, most_bytes, open_archive
from loopedge.graph.inputs import input_specs
from loopedge.graph.metadata import read_metadata
from loopedge.options import option
from loopedge.runtime.inputs import ModelInputs
from loopedge.tasks.task import Split, Task, task_from_dict

__all__ = [
    "BATCH",
    "Feeds",
    "Samples",
    "SamplesSeen",
    "checked",
    "data_files",
    "described_task",
    "holds_arrays",
    "limited",
    "read_samples",
    "sample_inputs",
]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
BATCH = 8
"""Samples that run together."""
ARRAYS = (".npz", ".npy")


def holds_arrays(path: str | Path) -> bool:
    """Tell whether a path is an ``.npz`` or ``.npy``, or a folder of ``.npz``, and no file that a task reads."""
    source = Path(path)
    return source.suffix.lower() in ARRAYS or (source.is_dir() and any(source.glob("*.npz")))


def sample_inputs(model: ir.Model) -> ModelInputs:
    """Return what samples of a model must hold: its inputs but for those that choose how it runs."""
    found = ModelInputs.of("the model", input_specs(model), read_metadata(model.metadata_props))
    return replace(found, specs={name: found.specs[name] for name in found.sampled})


def data_files(path: str | Path | None) -> list[Path]:
    """Return the files that a path of samples stands for: of a folder the archives and texts in it."""
    if path is None or not Path(path).is_dir():
        return [] if path is None else [Path(path)]
    texts = (file for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
    return [*Path(path).glob("*.npz"), *texts]


def described_task(
    model: ir.Model, data: str | Path | None, artifact: str | Path | None
) -> Task | None:
    """Return the task that a model was trained on; None where the model does not say.

    Args:
        model: The artifact's graph.
        data: What the task reads; arrays are not for the task.
        artifact: The model's file, beside which a tokenizer stands where the task needs one.

    Raises:
        InputError: The task needs other data, or its tokenizer is not there.
    """
    metadata = read_metadata(model.metadata_props)
    if not metadata.task:
        return None
    if data is not None and holds_arrays(data):
        data = None
    companions = {} if artifact is None else read_companions(artifact, metadata)
    return task_from_dict(metadata.task, data=data, companions=companions)


def read_samples(path: str | Path, expected: ModelInputs | None = None) -> Iterator[Feeds]:
    """Yield batches from an ``.npz``, or from every ``.npz`` of a folder in the order of names.

    Each array holds one input of the model, its first axis the samples. The arrays are read in
    pieces: memory does not grow with the number of samples.

    Args:
        path: File or folder.
        expected: The inputs of the model. With them the one array of a model of one input may have any name,
            and be an ``.npy`` or a CSV, which are read whole.

    Raises:
        InputError: The file is missing, is not an archive of arrays, or arrays differ in samples.
    """
    source = Path(path)
    if expected is not None and source.suffix.lower() in {".npy", ".csv"}:
        yield from _cut(expected.read(source, seed=None).arrays)
        return
    files = [source]
    if source.is_dir():
        files = sorted(source.glob("*.npz"))
        if not files:
            raise InputError(f"{source} holds no .npz file")
    for file in files:
        for feeds in _read_archive(
            check_file(file, needed="an .npz file", hint=option("data", "samples.npz"))
        ):
            yield feeds if expected is None else expected.name_alone(feeds)


def _cut(arrays: Feeds) -> Iterator[Feeds]:
    """Yield whole arrays in batches."""
    total = len(next(iter(arrays.values()), ()))
    for start in range(0, total, BATCH):
        yield {name: array[start : start + BATCH] for name, array in arrays.items()}


def _read_archive(path: Path) -> Iterator[Feeds]:
    with open_archive(path) as members:
        if not members:
            raise InputError(f"{path} holds no array")
        for member in members:
            _check_member(member)
        counts = {member.name: member.header.shape[0] for member in members}
        if len(set(counts.values())) > 1:
            raise InputError(f"{path}: the arrays differ in samples: {counts}")
        total = members[0].header.shape[0]
        needed = min(BATCH, total) * sum(_sample_bytes(member) for member in members)
        if needed > (allowed := most_bytes(path)):
            raise InputError(
                f"{path}: {min(BATCH, total)} samples take {needed:,} bytes, at most {allowed:,} are "
                "read at once from a file of its size"
            )
        for start in range(0, total, BATCH):
            rows = min(BATCH, total - start)
            yield {member.name: _read_rows(member, rows) for member in members}


def _check_member(member: ArchiveMember) -> None:
    if member.header.fortran and len(member.header.shape) > 1:
        raise InputError(f"{member.where} is stored in Fortran order")
    if not member.header.shape:
        raise InputError(f"{member.where} has no axis of samples")


def _sample_bytes(member: ArchiveMember) -> int:
    return math.prod(member.header.shape[1:]) * member.header.dtype.itemsize


def _read_rows(member: ArchiveMember, rows: int) -> Array:
    content = member.read(rows * _sample_bytes(member))
    return np.frombuffer(content, member.header.dtype).reshape(rows, *member.header.shape[1:])


def limited(batches: Iterable[Feeds], samples: int | None) -> Iterator[Feeds]:
    """Yield at most ``samples`` samples; None: all."""
    left = samples
    for feeds in batches:
        size = len(next(iter(feeds.values())))
        if left is None:
            yield feeds
            continue
        if left < size:
            if left > 0:
                yield {name: array[:left] for name, array in feeds.items()}
            return
        yield feeds
        left -= size


def checked(batches: Iterable[Feeds], model: ir.Model, seen: "SamplesSeen") -> Iterator[Feeds]:
    """Yield batches as the model takes them, and note what passed.

    A missing mask is filled in as `loopedge run` does. Inputs that hold noise may be missing: the session
    draws them.

    Raises:
        InputError: As `ModelInputs.accept`; no model is calibrated on numbers that are not finite.
    """
    expected = sample_inputs(model)
    for feeds in batches:
        accepted = expected.accept(
            feeds, seed=None, first_sample=seen.samples, always_finite=True
        ).arrays
        fitting = {name: np.ascontiguousarray(array) for name, array in accepted.items()}
        seen.note(fitting, next(iter(fitting)))
        yield fitting


class SamplesSeen:
    """How many samples passed, their lengths, and a hash of them."""

    def __init__(self) -> None:
        self.samples = 0
        self.lengths: set[int] = set()
        self._digest = hashlib.sha256()

    def note(self, feeds: Feeds, first: str) -> None:
        """Count a batch."""
        array = feeds[first]
        self.samples += len(array)
        if array.ndim > 1:
            self.lengths.add(int(array.shape[1]))
        for name in sorted(feeds):
            self._digest.update(name.encode())
            self._digest.update(np.ascontiguousarray(feeds[name]).tobytes())

    @property
    def sha256(self) -> str:
        """Hash of all samples, in order."""
        return self._digest.hexdigest()


class Samples:
    """What a user names as data, as often as it is asked for: checked, and no more than asked for.

    Args:
        data: ``.npz``, a folder of them, ``.npy``, or the file or folder that the model's task reads (a
            table, text, JSON lines); a CSV of numbers for a model that names no task; None: the generated
            task that it was trained on.
        model: The artifact.
        samples: Most samples to give.
        split: Which part of a task they come from.
        artifact: The model's file, beside which a tokenizer stands where the task needs one.

    Raises:
        InputError: The data cannot be read, or the model knows no task that fits it.
    """

    def __init__(
        self,
        data: str | Path | None,
        model: ir.Model,
        *,
        samples: int,
        split: Split = "train",
        artifact: str | Path | None = None,
    ) -> None:
        self.samples, self.split, self._model = samples, split, model
        self._path = Path(data) if data is not None else None
        self._expected = sample_inputs(model)
        self._names = self._expected.sampled
        self._task: Task | None = None
        if self._path is not None and not self._path.exists():
            raise InputError(f"{self._path} does not exist", hint=option("data", "samples.npz"))
        if self._path is None or not holds_arrays(self._path):
            self._task = described_task(model, self._path, artifact)
            is_table = self._path is not None and self._path.suffix.lower() == ".csv"
            if self._task is None and not is_table:
                raise InputError(
                    "the model does not say what it was trained on",
                    hint=option("data", "samples.npz"),
                )

    def __iter__(self) -> Iterator[Feeds]:
        """Yield batches of at most `BATCH` samples.

        Raises:
            InputError: A batch does not fit the model, or a value is not finite.
        """
        yield from checked(limited(self._batches(), self.samples), self._model, SamplesSeen())

    def _batches(self) -> Iterator[Feeds]:
        if self._task is None:
            if self._path is not None:
                yield from read_samples(self._path, self._expected)
            return
        for step, start in enumerate(range(0, self.samples, BATCH)):
            size = min(BATCH, self.samples - start)
            yield self._task.batch(self.split, size, step).feeds(self._names)
