"""How far the outputs of two graphs are apart that shall compute the same.

Two measures, for two questions. `largest_error`: does a rewritten graph compute the same, but for rounding? One
wrong position of a thousand shows. `NoiseRatio`: how much does quantization cost? Every value counts by its square.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "TOLERANCE",
    "LargestError",
    "NoiseRatio",
    "at_kept",
    "largest_error",
    "noise_ratio",
    "sqnr_db",
    "worst",
]

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

TOLERANCE = 1e-4
"""Largest allowed relative error (`LargestError`) of a graph that shall compute the same in float32."""

MOST_DB = 200.0
"""The ratio where there is no noise, to stay finite."""

ROUNDINGS = 2
"""Of one addition on either side, each by the precision of the output against the sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestError:
    """The largest error of an output: max |given - expected|, and that against max |expected|."""

    absolute: float
    relative: float


EVERYTHING = LargestError(absolute=float("inf"), relative=float("inf"))
NOTHING = LargestError(absolute=0.0, relative=0.0)


def largest_error(given: Array, expected: Array, offset: Array | None = None) -> LargestError:
    """Compare two outputs at their finite values.

    Args:
        given: The output to judge.
        expected: What it shall be.
        offset: What was added to both last (`loopedge.graph.offsets`): the relative error is against
            max |expected - offset| then, and what the output's type rounds off in adding it is not an error.

    Returns:
        Both errors; infinity where the shapes differ, where values that are not numbers differ, or where one
        is finite and the other is not. NaN agrees with NaN.
    """
    if given.shape != expected.shape:
        return EVERYTHING
    if expected.dtype.kind not in "fiubc":
        return NOTHING if np.array_equal(given, expected) else EVERYTHING
    finite = np.isfinite(expected)
    equal = expected.dtype.kind in "fc"
    if not np.array_equal(np.isfinite(given), finite) or not np.array_equal(
        given[~finite], expected[~finite], equal_nan=equal
    ):
        return EVERYTHING
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    difference = np.abs(given[finite].astype(wide) - expected[finite].astype(wide))
    absolute = float(difference.max(initial=0.0))
    signal = expected.astype(wide) if offset is None else expected.astype(wide) - offset
    largest = float(np.abs(signal[finite]).max(initial=0.0))
    rounded = 0.0
    if offset is not None and expected.dtype.kind == "f":
        precision = ROUNDINGS * float(np.finfo(expected.dtype).eps)
        rounded = precision * float(np.abs(expected[finite]).max(initial=0.0))
    counted = max(0.0, absolute - rounded)
    return LargestError(absolute=absolute, relative=counted / largest if largest > 0 else counted)


def worst(errors: Iterable[LargestError]) -> LargestError:
    """Return the largest absolute and the largest relative error; zeros of none."""
    listed = list(errors)
    return LargestError(
        absolute=max((error.absolute for error in listed), default=0.0),
        relative=max((error.relative for error in listed), default=0.0),
    )


def at_kept(array: Array, mask: Array | None) -> Array:
    """Return an output (batch, sequence, ...) at the positions that a mask keeps, (kept, ...).

    Args:
        array: Any output; one of other leading axes comes back as it is.
        mask: (batch, sequence), 1 = keep. One that keeps nothing hides nothing: no output passes unseen.
    """
    if mask is None or array.ndim < 2 or array.shape[:2] != tuple(mask.shape):
        return array
    kept = np.asarray(mask).astype(bool)
    return array[kept] if kept.any() else array


class NoiseRatio:
    """Sums the power of a signal and of what is wrong with it, over outputs and runs."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: Array, given: Array, offset: Array | None = None) -> None:
        """Count an output.

        Args:
            exact: Of the reference.
            given: To be judged, of the same shape.
            offset: What was added to both last: no part of the signal.
        """
        signal = _without(exact, offset)
        self.signal += float(np.square(signal).sum())
        self.noise += float(np.square(signal - _without(given, offset)).sum())

    @property
    def db(self) -> float:
        """The signal-to-quantization-noise ratio, in dB."""
        return sqnr_db(self.signal, self.noise)

    @property
    def share(self) -> float:
        """||given - exact|| / ||exact||: 10^(-dB / 20); infinity where it is not a number."""
        if not np.isfinite(self.noise):
            return float("inf")
        return float(np.sqrt(self.noise / self.signal)) if self.signal else float(self.noise > 0)


def noise_ratio(
    exact: Iterable[Outputs], given: Iterable[Outputs], offsets: Mapping[str, Array] | None = None
) -> NoiseRatio:
    """Compare all outputs of all runs.

    Args:
        exact: Outputs of the reference, run by run.
        given: Outputs to judge, of the same runs.
        offsets: What was added last, by output.
    """
    ratio = NoiseRatio()
    for one, other in zip(exact, given, strict=True):
        for name, array in one.items():
            ratio.add(array, other[name], (offsets or {}).get(name))
    return ratio


def sqnr_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two powers; 200 dB where there is no noise, to stay finite."""
    if not np.isfinite(noise):
        return float("-inf")
    if noise <= 0 or signal <= 0:
        return MOST_DB if noise <= 0 else -MOST_DB
    return min(MOST_DB, 10.0 * float(np.log10(signal / noise)))


def _without(array: Array, offset: Array | None) -> Array:
    wide: Array = array.astype(np.float64)
    return wide if offset is None else wide - offset
