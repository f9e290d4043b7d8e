"""What may be asked of a pilot, checked before any work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from loopedge.errors import InputError
from loopedge.options import by_face, option, option_name
from loopedge.study.judging.margin import read_margin

__all__ = ["ARMS", "AT_MOST_LOOPS", "LOOKS", "RATES", "UNLOOPED", "PilotKeywords", "PilotOptions"]

ARMS = {
    "looped": "none", "constant": "constant", "timestep": "sinusoidal", "elastic": "none", "untied": "none", "narrow": "none",
}  # fmt: skip
"""Name of an arm, and its `LoopedConfig.timestep`.

``constant`` has the norms and gates of ``timestep``, equal in every iteration: the fair control.
``elastic`` is the plain loop, trained with loop counts drawn from 1 on: one model for all of them.
``untied`` gives each iteration a layer of its own: the same depth, its weights r times. ``narrow`` too, but of a
width with which all of them hold as many weights as one looped layer.
"""
UNLOOPED = ("untied", "narrow")
"""Arms that are compared with and never recommended."""
AT_MOST_LOOPS = ("elastic", *UNLOOPED)
"""Arms that are made at the most loops alone."""
LOOKS = (3, 5, 8, 12)
"""Seeds at which ``auto`` looks whether it is decided."""
RATES = (1e-3, 2e-3, 4e-3, 8e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotOptions:
    """What a pilot compares, and how; each field is a keyword of `loopedge.pilot` too.

    Args:
        loops: Loop counts.
        arms: Of `ARMS`, in the order in which they are shown.
        seeds: Number of seeds of each arm and loop count; ``auto``: as many of 3, 5, 8 and 12 as a decision takes.
        origins: Test periods that follow each other at the end of a series, as `SeriesTask.at_origins`; default: one.
        margin: The difference that does not matter: ``2%`` of the best baseline's error, or a number in the metric's unit.
        rates: Peak learning rates tried for each arm and loop count on the validation split; of one nothing is tried.
            ``lr`` in ``train`` wins.
        first_seed: The first one.
        model: Fields of `LoopedConfig` that all runs share.
        train: Options of `TrainConfig` that all runs share.
        device: Where the models are trained.
        threads: Of a training; default: PyTorch's choice.
        jobs: Runs at the same time, each in a process of one thread; 1: one after the other.
        budget: Seconds for everything; loop counts and arms that do worst are left out, by successive halving.
        max_memory: Most bytes that a model may take, for `Requirements`.
        max_latency: Most seconds that a sample may take.
        min_metric: The metric must be at least so good: no lower, or no higher where lower is better.
        ray: Address of a Ray cluster that makes the runs; default: this machine does.
        keep_windows: Keep a few windows of the test split in the results, for the page to plot.
        resume: Keep the runs that are finished, go on with the others; arms, loop counts and seeds may
            be added.
        force: Drop what an earlier pilot wrote to the folder.

    Raises:
        InputError: An arm is unknown or named twice, or a count is out of bounds.
    """

    loops: Sequence[int] = (1, 4, 8)
    arms: Sequence[str] = ("looped", "constant", "timestep", "untied", "narrow")
    seeds: int | Literal["auto"] = "auto"
    origins: int | None = None
    margin: str | float = "2%"
    rates: Sequence[float] = RATES
    first_seed: int = 0
    model: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    device: str = "cpu"
    threads: int | None = None
    jobs: int = 1
    budget: float | None = None
    max_memory: int | None = None
    max_latency: float | None = None
    min_metric: float | None = None
    ray: str | None = None
    keep_windows: bool = True
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        self._check_arms()
        loops = list(self.loops)
        if not loops or min(loops) < 1 or len(set(loops)) != len(loops):
            raise InputError(
                f"loops {','.join(map(str, loops)) or 'none'}: different counts from 1 are needed",
                hint=option("loops", (1, 4, 8)),
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        least: dict[str, tuple[float | None, int]] = {
            "seeds": (None if self.seeds == "auto" else self.seeds, 1),
            "jobs": (self.jobs, 1),
            "origins": (self.origins, 2),
            "max_memory": (self.max_memory, 1),
        }
        for name, (value, bound) in least.items():
            if value is not None and value < bound:
                raise InputError(
                    f"{option_name(name)} is {value}, at least {bound} is needed",
                    hint=option(name, max(bound, 3) if name == "seeds" else bound),
                )
        for name, value in (("budget", self.budget), ("max_latency", self.max_latency)):
            if value is not None and not 0 < value < math.inf:
                example = by_face("20m" if name == "budget" else "50ms", "a number of seconds")
                raise InputError(
                    f"{option_name(name)} is {value}, a time above 0 is needed",
                    hint=f"{option_name(name)} {example}",
                )
        rates = list(self.rates)
        if not rates or len(set(rates)) != len(rates) or not all(0 < rate <= 10 for rate in rates):
            raise InputError(
                f"{by_face('--lr', 'rates')} {','.join(map(str, rates)) or 'none'}: different numbers above 0, up to 10, are needed",
                hint=by_face("--lr 1e-3,2e-3,4e-3", "rates=[1e-3, 2e-3, 4e-3]"),
            )
        if self.min_metric is not None and not math.isfinite(self.min_metric):
            raise InputError(
                f"{option_name('min_metric')} is {self.min_metric}, a finite number is needed",
                hint=option("min_metric", 0.9),
            )
        read_margin(self.margin)

    def _check_arms(self) -> None:
        arms = list(self.arms)
        for arm in arms:
            if arm not in ARMS:
                raise InputError(f"arm {arm!r} is not known", hint=option("arms", tuple(ARMS)))
        if arms and not set(arms) - set(UNLOOPED):
            raise InputError(
                f"arms {','.join(arms)}: there is no looped model to compare with",
                hint=option("arms", ("looped", *arms)),
            )
        if not arms or len(set(arms)) != len(arms):
            raise InputError(f"arms {','.join(arms) or 'none'}: each must be named once")


class PilotKeywords(TypedDict, total=False):
    """The fields of `PilotOptions` as keywords."""

    loops: Sequence[int]
    arms: Sequence[str]
    seeds: int | Literal["auto"]
    origins: int | None
    margin: str | float
    rates: Sequence[float]
    first_seed: int
    model: dict[str, Any] | None
    train: dict[str, Any] | None
    device: str
    threads: int | None
    jobs: int
    budget: float | None
    max_memory: int | None
    max_latency: float | None
    min_metric: float | None
    ray: str | None
    keep_windows: bool
    resume: bool
    force: bool
