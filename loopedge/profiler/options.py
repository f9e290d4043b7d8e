"""What may be asked of a profile, checked before any work."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from loopedge.errors import InputError
from loopedge.options import option
from loopedge.profiler.sweep import Configuration, configurations
from loopedge.runtime.providers import CUDA_PROVIDER, full_name, provider_options

__all__ = ["SECONDS_PER_MODEL", "SOAK_SECONDS", "ProfileKeywords", "ProfileOptions"]

SECONDS_PER_MODEL = 1.0
SOAK_SECONDS = 10.0
"""From so many seconds on, a profile looks for leaks and drift."""

Sizes = int | Sequence[int]
Models = bool | Collection[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """How models are profiled; each field is a keyword of `loopedge.profile` too.

    Args:
        untied: Also profile each model's untied twin, whose iterations have own weights; or those of
            the models that are named.
        unrolled: As ``untied``, the twin that is unrolled and shares its weights.
        provider: Execution provider: ``cpu``, ``cuda``, or another one that the installed onnxruntime has
            (`loopedge.Session`). Outputs on another one than the CPU are compared with those of the CPU before any time.
        provider_options: Of the provider, by its own names.
        float16: Also profile each model and twin computed in float16.
        balanced: Also profile each model of memory profile ``low`` as ``balanced``: what ``low`` costs here.
        cuda_graphs: Also profile each unrolled graph replayed as a CUDA graph; models with a Loop get
            their unrolled twin for it. Needs ``provider="cuda"``.
        memory: ``balanced``, ``low`` or ``mapped``; default: as each file says.
        threads: Threads inside an operator; each process is pinned to as many cores. This and the next
            three may be several: every combination is profiled.
        batch: Size of the batch axis of generated inputs.
        sequence: Size of the sequence axis; default: as trained.
        loops: Iterations, for models with a selectable count.
        input: ``.npz`` with one array per input, instead of generated inputs.
        runs: Timed runs per model, over all its processes; default: what fits into ``seconds``, at
            least 20.
        seconds: Time for the timed runs of each model; default 1. From 10 on memory and latency over
            that time are judged (`Soak`).
        processes: Fresh processes per model; figures are their medians.
        details: Whether operators, iterations, sources of memory and the roofline are measured too.
        seed: Of the generated inputs.

    Raises:
        InputError: A value is out of bounds, or two do not go together.
    """

    untied: Models = False
    unrolled: Models = False
    provider: str = "cpu"
    provider_options: Mapping[str, str] | None = None
    float16: bool = False
    balanced: bool = False
    cuda_graphs: bool = False
    memory: str | None = None
    threads: Sizes = 1
    batch: Sizes = 1
    sequence: Sizes | None = None
    loops: Sizes | None = None
    input: str | Path | None = None
    runs: int | None = None
    seconds: float | None = None
    processes: int = 3
    details: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("runs", self.runs), ("processes", self.processes)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, at least 1 is needed", hint=option(name, 1))
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(
                f"seconds is {self.seconds}, a number above 0 is needed",
                hint=option("seconds", format(SECONDS_PER_MODEL, "g")),
            )
        sizes = {(point.batch, point.sequence) for point in self.points}
        if self.input is not None and len(sizes) > 1:
            raise InputError(f"{self.input} has one batch and one sequence: they cannot be varied")
        provider_options(self.provider_options)
        if self.cuda_graphs and self.provider_name != CUDA_PROVIDER:
            raise InputError(
                "a CUDA graph needs a CUDA device",
                hint=f"{option('provider', 'cuda')} {option('cuda_graphs')}",
            )

    @property
    def provider_name(self) -> str:
        """The provider as ONNX Runtime calls it."""
        return full_name(self.provider)

    @property
    def points(self) -> list[Configuration]:
        """Every combination of threads, batch, sequence and loops."""
        return configurations(self.batch, self.sequence, self.loops, self.threads)

    @property
    def timed_seconds(self) -> float:
        """Time for the timed runs of each model."""
        return SECONDS_PER_MODEL if self.seconds is None else self.seconds

    @property
    def is_soak(self) -> bool:
        """Whether memory and latency are judged over time."""
        return self.timed_seconds >= SOAK_SECONDS


class ProfileKeywords(TypedDict, total=False):
    """The fields of `ProfileOptions` as keywords."""

    untied: Models
    unrolled: Models
    provider: str
    provider_options: Mapping[str, str] | None
    float16: bool
    balanced: bool
    cuda_graphs: bool
    memory: str | None
    threads: Sizes
    batch: Sizes
    sequence: Sizes | None
    loops: Sizes | None
    input: str | Path | None
    runs: int | None
    seconds: float | None
    processes: int
    details: bool
    seed: int
