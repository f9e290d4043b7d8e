"""What may be asked of a calibration, checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from loopedge.quantizer.activations.ranges import Granularity
from loopedge.quantizer.options import QuantizeOptions, check_loops, check_ranges, check_samples

__all__ = ["CHUNK_BYTES", "CollectKeywords", "CollectOptions"]

CHUNK_BYTES = 256 * 2**20
"""Probed activations of one pass; a larger model is run in several passes per batch."""


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
        check_ranges(self.granularity, self.method)
        if self.samples is not None:
            check_samples(self.samples)
        check_loops(self.loops)

    @classmethod
    def of(cls, options: QuantizeOptions) -> "CollectOptions":
        """Return how a quantization finds its ranges; which samples calibrate is chosen before."""
        return cls(
            granularity=options.chosen_granularity,
            method=options.chosen_method,
            as_core=options.as_core,
            smoothing=options.smoothing,
            loops=options.loops,
            threads=options.threads,
        )
