"""What passed of the data, and whether ranges can be found on it: variation, level, lengths."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.graph.signature import InputSpec
from loopedge.options import option
from loopedge.runtime.array_checks import is_mask
from loopedge.runtime.inputs import ModelInputs
from loopedge_calibration.readers import Feeds, SampleBatch

__all__ = ["Survey", "sample_digests"]

Array = npt.NDArray[Any]

QUIET = 0.1
"""Deviation of an input below this share of that of the training data: the ranges are those of a quiet part."""
QUIET_UNKNOWN = 0.01
"""Deviation of a float input below which it is quiet, where the model does not say that of the training data."""
FEW_COLUMNS = 64
"""Columns of an input that are looked at one by one."""


@dataclass(slots=True)
class _Spread:
    """Extremes, mean, and squares of what lies around it, of an input, by column where there are few; NaN does not count."""

    low: Array
    high: Array
    mean: Array
    squares: Array
    count: Array

    @classmethod
    def of(cls, values: Array) -> "_Spread":
        columns = values.reshape(-1, values.shape[-1] if _by_column(values) else 1).astype(
            np.float64
        )
        there = ~np.isnan(columns)
        count = there.sum(axis=0)
        mean = np.where(there, columns, 0.0).sum(axis=0) / np.maximum(count, 1)
        return cls(
            low=np.where(there, columns, np.inf).min(axis=0),
            high=np.where(there, columns, -np.inf).max(axis=0),
            mean=mean,
            squares=np.square(np.where(there, columns - mean, 0.0)).sum(axis=0),
            count=count,
        )

    def add(self, other: "_Spread") -> None:
        """Take further values: Chan et al. 1979, for the squares of values far from zero lose their differences."""
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        self.squares = self.squares + other.squares + np.square(apart) * self.count * share
        self.mean = self.mean + apart * share
        self.count = count

    @property
    def still(self) -> npt.NDArray[np.bool_]:
        """Columns that hold one value, or none."""
        return ~(self.high > self.low)

    @property
    def deviation(self) -> Array:
        """Standard deviation of each column."""
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)))


def _by_column(values: Array) -> bool:
    return values.ndim > 2 and values.shape[-1] <= FEW_COLUMNS


def sample_digests(feeds: Feeds) -> list[bytes]:
    """Return a hash of each sample of a batch; of a batch that cannot be cut one of all."""
    arrays = [np.ascontiguousarray(feeds[name]) for name in sorted(feeds)]
    sizes = {(*array.shape, None)[0] for array in arrays}
    rows = next(iter(sizes)) if len(sizes) == 1 else None
    if rows is None:
        return [hashlib.sha256(b"".join(array.tobytes() for array in arrays)).digest()]
    return [
        hashlib.sha256(b"".join(array[row].tobytes() for array in arrays)).digest()
        for row in range(rows)
    ]


@dataclass(slots=True)
class Survey:
    """Samples that passed: how many, their lengths, a hash, and how their values vary.

    Args:
        expected: The inputs of the model.
        scales: Deviation of the training data by input, float (columns,), where the model says it.
    """

    expected: ModelInputs
    scales: dict[str, Array] = field(default_factory=dict)
    samples: int = 0
    lengths: set[int] = field(default_factory=set)
    digests: set[bytes] = field(default_factory=set)
    _hashed: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    _spreads: dict[str, _Spread] = field(default_factory=dict)
    _negative: dict[str, str] = field(default_factory=dict)

    def note(self, batch: SampleBatch) -> None:
        """Count a batch."""
        feeds = batch.feeds
        first = feeds[next(iter(feeds))]
        self.samples += len(first) if np.ndim(first) else 1
        if np.ndim(first) > 1:
            self.lengths.add(int(first.shape[1]))
        for name in sorted(feeds):
            self._digest.update(name.encode())
            self._digest.update(np.ascontiguousarray(feeds[name]).tobytes())
        samples = {name: array for name, array in feeds.items() if name in self.expected.specs}
        digests = sample_digests(samples)  # without a loop count
        self._hashed += len(digests)
        self.digests.update(digests)
        for name, spec in self._watched(feeds):
            found = _Spread.of(feeds[name])
            if name in self._spreads and len(found.low) == len(self._spreads[name].low):
                self._spreads[name].add(found)
            else:
                self._spreads.setdefault(name, found)
            if spec.ids is None and feeds[name].dtype.kind == "i" and name not in self._negative:
                below = np.argwhere(feeds[name] < 0)
                if len(below):
                    place = tuple(below[0])
                    self._negative[name] = (
                        f"{batch.where(int(place[0]))} holds {feeds[name][place]}"
                    )

    def _watched(self, feeds: Feeds) -> list[tuple[str, InputSpec]]:
        """Return the inputs whose values ranges follow: numbers and ids, no mask, no scalar."""
        specs = self.expected.specs
        return [
            (name, specs[name])
            for name in feeds
            if name in specs
            and not is_mask(specs[name])
            and feeds[name].dtype.kind in "fiu"
            and feeds[name].ndim > 0
            and feeds[name].size
        ]

    @property
    def sha256(self) -> str:
        """Hash of all samples, in order."""
        return str(self._digest.hexdigest())

    def check(self) -> list[str]:
        """Refuse samples on which nothing can be found; return what a person should know of the others.

        Raises:
            InputError: There is no sample, no input varies, or all samples are the same.
        """
        hint = option("data", "samples.npz")
        if not self.samples:
            raise InputError("the data holds no sample", hint=hint)
        still = {name: found for name, found in self._spreads.items() if found.still.all()}
        varying = [name for name in self._spreads if name not in still]
        if still and not varying:
            values = ", ".join(f"{name} is {_value(found)}" for name, found in still.items())
            raise InputError(
                f"the data does not vary: {values} in all of {_count(self.samples)} looked at; neither "
                "ranges nor an error can be found on it",
                hint=f"{hint} with samples like those of the device",
            )
        if self._hashed > 1 and len(self.digests) == 1:  # a batch that cannot be cut has one hash
            raise InputError(
                f"all {self.samples} samples looked at are the same one; neither ranges nor an error can be found on "
                "it",
                hint=f"{hint} with samples like those of the device",
            )
        return [*self._still_notes(still), *self._quiet_notes(), *self._negative_notes()]

    def _still_notes(self, still: dict[str, _Spread]) -> list[str]:
        notes = [
            f"input {name} is {_value(found)} in all samples: ranges hold for that value alone"
            for name, found in still.items()
        ]
        for name, found in self._spreads.items():
            columns = np.flatnonzero(found.still)
            if name not in still and len(columns):
                listed = _columns(columns, self.expected.columns, len(found.low))
                notes.append(
                    f"input {name}: {listed} does not vary in the samples: ranges hold for these values alone"
                )
        return notes

    def _quiet_notes(self) -> list[str]:
        notes = []
        for name, found in self._spreads.items():
            scale = self.scales.get(name)
            dtype = self.expected.specs[name].dtype
            if scale is None and dtype is not None and dtype.kind == "f":
                largest = float(found.deviation.max())
                if 0 < largest < QUIET_UNKNOWN:
                    notes.append(
                        f"input {name} is quiet: its deviation is {largest:.3g}, and the model does not say that of "
                        "its training data: larger values would leave the ranges"
                    )
            if scale is None or np.shape(scale) != found.low.shape:
                continue
            share = found.deviation / np.maximum(np.abs(scale), np.finfo(np.float32).tiny)
            quiet = (share < QUIET) & ~found.still
            if quiet.any():
                column = int(np.flatnonzero(quiet)[0])
                listed = _columns(np.flatnonzero(quiet), self.expected.columns, len(found.low))
                notes.append(
                    f"input {name}: {listed} is quiet: its deviation is {found.deviation[column]:.3g}, that of the "
                    f"training data {float(np.ravel(scale)[column]):.3g}: larger values will leave the ranges"
                )
        return notes

    def _negative_notes(self) -> list[str]:
        return [
            f"input {name}: {where}; where integers select rows of a table, negative ones count from its end"
            for name, where in self._negative.items()
        ]


def _count(samples: int) -> str:
    return f"{samples} samples" if samples != 1 else "one sample"


def _value(spread: _Spread) -> str:
    values = np.unique(spread.low[np.isfinite(spread.low)])
    if not len(values):
        return "missing"
    return f"{values[0] + 0.0:g}" if len(values) == 1 else "constant by column"


def _columns(columns: Array, names: Sequence[str], total: int) -> str:
    if total == 1:
        return "it"
    named = len(names) == total
    listed = [repr(names[place]) if named else str(place + 1) for place in columns.tolist()]
    return f"column{'s' if len(listed) > 1 else ''} {', '.join(listed)}"
