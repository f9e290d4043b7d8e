"""What a pilot compares: arms, loop counts, seeds, with everything else equal."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.options import option
from loopedge.study.options import ARMS, AT_MOST_LOOPS, LOOKS, UNLOOPED, PilotOptions
from loopedge.study.start import with_start, with_training
from loopedge.tasks.task import Task
from loopedge.trainer.config import TrainConfig, make_model_config, make_train_config

__all__ = ["Cell", "Design", "block_name", "make_design", "parameters_of"]

Key = tuple[str, int]
"""An arm at a loop count."""

MOST_CELLS = 1000
NEAR = 0.15
"""Share by which the weights of a narrow stack may differ from those that it is compared with."""


def block_name(seed: int, origin: int | None = None) -> str:
    """Return the name of a seed at an origin: ``s0``, ``s0-o1``."""
    return f"s{seed}" if origin is None else f"s{seed}-o{origin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training of the pilot."""

    arm: str
    loops: int
    seed: int
    origin: int | None = None

    @property
    def block(self) -> str:
        """What it shares with the runs that it is compared with: the seed, and the origin where there are several."""
        return block_name(self.seed, self.origin)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.arm}-r{self.loops}-{self.block}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "arm": self.arm,
            "loops": self.loops,
            "seed": self.seed,
            "origin": self.origin,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Arms, loop counts and seeds, and the options that all runs share.

    Args:
        arms: Of `ARMS`, in the order in which they are shown.
        loops: Ascending.
        seeds: Number of seeds, from ``first_seed`` on.
        first_seed: The first one.
        model: Fields of `LoopedConfig` that are named; `with_start` adds to them.
        train: Options of `TrainConfig` that are named; `with_training` adds to them.
        origins: Test periods of a series, the oldest first; None: one.
        rates: Peak learning rates that are tried; none where the user named ``lr``.
        device: Where the models are trained.
        left_out: Of what is compared, what the budget leaves out.
    """

    arms: tuple[str, ...]
    loops: tuple[int, ...]
    seeds: int
    first_seed: int
    model: dict[str, Any]
    train: dict[str, Any]
    origins: int | None = None
    rates: tuple[float, ...] = ()
    device: str = "cpu"
    left_out: tuple[Key, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed: a pilot that is stopped early has whole comparisons."""
        origins = [None] if self.origins is None else list(range(self.origins))
        return [
            Cell(arm=arm, loops=loops, seed=seed, origin=origin)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for origin in origins
            for arm, loops in self.compared
        ]

    @property
    def compared(self) -> list[tuple[str, int]]:
        """Every arm at its loop counts; of one loop `AT_MOST_LOOPS` would be the plain loop."""
        most = self.loops[-1]
        return [
            (arm, loops)
            for loops in self.loops
            for arm in self.arms
            if (arm not in AT_MOST_LOOPS or loops == most > 1) and (arm, loops) not in self.left_out
        ]

    def model_config(self, task: Task, cell: Cell) -> LoopedConfig:
        """Return the configuration of a run's model.

        Raises:
            InputError: A field is out of bounds.
        """
        shared = {**self.model, "timestep": ARMS[cell.arm], "loops": cell.loops}
        tied = make_model_config(task, **with_start(task, shared))
        if cell.arm == "elastic":
            return make_model_config(task, **with_start(task, shared | {"min_loops": 1}))
        if cell.arm not in UNLOOPED:
            return tied
        untied = shared | {"layers": tied.layers * cell.loops, "loops": 1}
        if cell.arm == "narrow":
            untied |= narrow_sizes(task, untied, parameters_of(tied))
        return make_model_config(task, **with_start(task, untied))

    def train_config(self, cell: Cell, rate: float | None = None) -> TrainConfig:
        """Return the options of a run.

        Args:
            cell: The run.
            rate: Its peak learning rate; default: that of the options.

        Raises:
            InputError: An option is out of bounds.
        """
        chosen = {} if rate is None else {"lr": rate}
        return make_train_config(**with_training(self.train) | chosen, seed=cell.seed)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "arms": list(self.arms),
            "loops": list(self.loops),
            "seeds": self.seeds,
            "first_seed": self.first_seed,
            "origins": self.origins,
            "model": self.model,
            "train": self.train,
            "rates": list(self.rates),
            "device": self.device,
        }


def make_design(task: Task, options: PilotOptions) -> Design:
    """Return a design all of whose models and runs can be built.

    Raises:
        InputError: There are too many runs or none, or a field of a model or a training is out of bounds.
    """
    train = options.train or {}
    design = Design(
        arms=tuple(options.arms),
        loops=tuple(sorted(options.loops)),
        seeds=LOOKS[0] if options.seeds == "auto" else options.seeds,
        first_seed=options.first_seed,
        model=options.model or {},
        train=train,
        origins=options.origins,
        rates=() if "lr" in train else tuple(sorted(options.rates)),
        device=options.device,
    )
    if len(design.cells) > MOST_CELLS:
        raise InputError(f"the pilot has {len(design.cells)} runs, at most {MOST_CELLS} are made")
    if not design.cells:
        raise InputError(
            f"arms {','.join(design.arms)} at one loop are the plain loop",
            hint=f"{option('loops', (1, 4))}, or {option('arms', ('looped', *design.arms))}",
        )
    for arm, loops in design.compared:
        cell = Cell(arm=arm, loops=loops, seed=design.first_seed)
        design.model_config(task, cell)
        for rate in design.rates or (None,):
            design.train_config(cell, rate)
    return design


def parameters_of(config: LoopedConfig) -> int:
    """Return how many weights a model of a configuration has; none is made, and layers are counted once."""
    one, two = (_weights(config.model_copy(update={"layers": layers})) for layers in (1, 2))
    return one + (config.layers - 1) * (two - one)


def narrow_sizes(task: Task, fields: dict[str, Any], parameters: int) -> dict[str, int]:
    """Return width and heads with which a model has as nearly ``parameters`` weights as can be.

    Head sizes are even. The heads stay as many as they are if `NEAR` is reached with them, else some are left out.

    Args:
        task: Decides the embedding and the head.
        fields: Of the model; its width and heads are replaced.
        parameters: Of the model that it is compared with.
    """
    wide = make_model_config(task, **with_start(task, fields))
    found: list[tuple[float, int, int]] = []
    for heads in (count for count in range(wide.heads, 0, -1) if wide.heads % count == 0):
        found.append(
            min(
                (abs(parameters_of(_sized(wide, width, heads)) / parameters - 1), width, heads)
                for width in range(2 * heads, wide.d_model + 2 * heads, 2 * heads)
            )
        )
        if found[-1][0] <= NEAR:
            break
    _, width, heads = found[-1] if found[-1][0] <= NEAR else min(found)
    return {"d_model": width, "heads": heads}


def _sized(config: LoopedConfig, width: int, heads: int) -> LoopedConfig:
    return config.model_copy(update={"d_model": width, "heads": heads})


@cache
def _weights(config: LoopedConfig) -> int:
    import torch

    from loopedge.model.transformer import LoopedTransformer

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LoopedTransformer(config).parameters())
