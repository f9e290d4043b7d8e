"""What may be asked of a pilot, checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from loopedge.errors import InputError
from loopedge.options import option

__all__ = ["ARMS", "PilotKeywords", "PilotOptions"]

ARMS = {"looped": "none", "constant": "constant", "timestep": "sinusoidal", "untied": "none"}
"""Name of an arm, and its `LoopedConfig.timestep`.

``constant`` has the norms and gates of ``timestep``, equal in every iteration: the fair control.
``untied`` gives each iteration a layer of its own: the same depth, its weights r times.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotOptions:
    """What a pilot compares, and how; each field is a keyword of `loopedge.pilot` too.

    Args:
        loops: Loop counts.
        arms: Of `ARMS`, in the order in which they are shown.
        seeds: Number of seeds of each arm and loop count.
        first_seed: The first one.
        model: Fields of `LoopedConfig` that all runs share.
        train: Options of `TrainConfig` that all runs share.
        device: Where the models are trained.
        threads: Of a training; default: PyTorch's choice.
        jobs: Runs at the same time, each in a process of one thread; 1: one after the other.
        resume: Keep the runs that are finished, go on with the others; arms, loop counts and seeds may
            be added.
        force: Drop what an earlier pilot wrote to the folder.

    Raises:
        InputError: An arm is unknown or named twice, or a count is out of bounds.
    """

    loops: Sequence[int] = (1, 4, 8)
    arms: Sequence[str] = ("looped", "constant", "timestep")
    seeds: int = 3
    first_seed: int = 0
    model: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    device: str = "cpu"
    threads: int | None = None
    jobs: int = 1
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
        if self.seeds < 1:
            raise InputError(
                f"seeds is {self.seeds}, at least 1 is needed", hint=option("seeds", 3)
            )
        if self.jobs < 1:
            raise InputError(f"jobs is {self.jobs}, at least 1 is needed", hint=option("jobs", 1))

    def _check_arms(self) -> None:
        arms = list(self.arms)
        for arm in arms:
            if arm not in ARMS:
                raise InputError(f"arm {arm!r} is not known", hint=option("arms", tuple(ARMS)))
        if arms and not set(arms) - {"untied"}:
            raise InputError(
                "arms untied: there is no looped model to compare with",
                hint=option("arms", ("looped", "untied")),
            )
        if not arms or len(set(arms)) != len(arms):
            raise InputError(f"arms {','.join(arms) or 'none'}: each must be named once")


class PilotKeywords(TypedDict, total=False):
    """The fields of `PilotOptions` as keywords."""

    loops: Sequence[int]
    arms: Sequence[str]
    seeds: int
    first_seed: int
    model: dict[str, Any] | None
    train: dict[str, Any] | None
    device: str
    threads: int | None
    jobs: int
    resume: bool
    force: bool
