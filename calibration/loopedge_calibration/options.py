"""What may be asked of a calibration, checked before any work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

from loopedge.errors import InputError
from loopedge.options import by_face, option, option_name
from loopedge.quantizer.activations.ranges import Granularity
from loopedge.quantizer.options import QuantizeKeywords, QuantizeOptions
from loopedge_calibration.losses import METRICS
from loopedge_calibration.observers import METHODS

__all__ = [
    "CHUNK_BYTES",
    "DEFAULT_SAMPLES",
    "CalibrationKeywords",
    "CalibrationOptions",
    "CollectKeywords",
    "CollectOptions",
]

CHUNK_BYTES = 256 * 2**20
"""Probed activations of one pass; a larger model is run in several passes per batch."""

DEFAULT_SAMPLES = 128


class CollectKeywords(TypedDict, total=False):
    """The fields of `CollectOptions` as keywords of `loopedge_calibration.collect`."""

    granularity: Granularity
    method: str
    as_core: Sequence[str]
    smoothing: bool | None
    samples: int | None
    loops: int | None
    threads: int | None
    chunk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """How ranges are found; `loopedge_calibration.collect` says what each field means.

    Raises:
        InputError: A value is unknown or outside its bounds.
    """

    granularity: Granularity = "per-iteration"
    method: str = "mse"
    as_core: Sequence[str] = ()
    smoothing: bool | None = None
    samples: int | None = None
    loops: int | None = None
    threads: int | None = None
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        _check_ranges(self.granularity, self.method)
        if self.samples is not None:
            _check_samples(self.samples)


class CalibrationKeywords(QuantizeKeywords, total=False):
    """The fields of `CalibrationOptions` as keywords of `calibrate_and_quantize`."""

    data: str | Path | None
    granularity: Granularity
    method: str
    smoothing: bool
    samples: int
    ranges_file: str | Path | None
    save_ranges: str | Path | None
    max_drop: float | None
    metric: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions(QuantizeOptions):
    """How a model is calibrated and quantized.

    The fields of `QuantizeOptions`, and those of which `calibrate_and_quantize` says what each means.

    Raises:
        InputError: A value is unknown or outside its bounds, or two do not go together.
    """

    data: str | Path | None = None
    granularity: Granularity = "per-iteration"
    method: str = "mse"
    smoothing: bool = True
    samples: int = DEFAULT_SAMPLES
    ranges_file: str | Path | None = None
    save_ranges: str | Path | None = None
    max_drop: float | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        QuantizeOptions.__post_init__(self)  # super() does not know the class that slots made
        _check_ranges(self.granularity, self.method)
        _check_samples(self.samples)
        self._check_budget()
        if self.chosen_scheme != "static" and (self.ranges_file or self.save_ranges) is not None:
            files = by_face("--ranges-file and --save-ranges", "ranges_file and save_ranges")
            raise InputError(
                f"{self.chosen_scheme} takes and gives no ranges",
                hint=f"leave out {files}, or {option('scheme', 'static')}",
            )

    @property
    def chosen_scheme(self) -> str:
        """The scheme; where none is named, static with data or a file of ranges, else dynamic."""
        known = (self.data or self.ranges_file) is not None
        return self.scheme or ("static" if known else "dynamic")

    @property
    def calibrates(self) -> bool:
        """Whether ranges are found on data."""
        return self.chosen_scheme == "static" and self.ranges_file is None

    def collecting(self) -> CollectOptions:
        """Return how ranges are found."""
        return CollectOptions(
            granularity=self.granularity,
            method=self.method,
            as_core=self.as_core,
            smoothing=self.smoothing,
            samples=self.samples,
            threads=self.threads,
        )

    def _check_budget(self) -> None:
        if self.metric is not None and self.max_drop is None:
            raise InputError("a metric needs a budget", hint=option("max_drop", 0.01))
        if self.metric is not None and self.metric not in METRICS:
            raise InputError(
                f"metric {self.metric!r} is not known, known are {', '.join(METRICS)}",
                hint=option("metric", "task"),
            )
        if self.max_drop is not None and (not math.isfinite(self.max_drop) or self.max_drop < 0):
            raise InputError(
                f"{option_name('max_drop')} is {self.max_drop}, allowed is 0 or more",
                hint=option("max_drop", 0.01),
            )


def _check_ranges(granularity: str, method: str) -> None:
    if granularity not in get_args(Granularity):
        raise InputError(
            f"granularity {granularity!r} is not known, known are {', '.join(get_args(Granularity))}",
            hint=option("granularity", "per-iteration"),
        )
    if method not in METHODS:
        raise InputError(
            f"method {method!r} is not known, known are {', '.join(METHODS)}",
            hint=option("method", "mse"),
        )


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise InputError(f"samples is {samples}, at least 1 is needed", hint=option("samples", 64))
