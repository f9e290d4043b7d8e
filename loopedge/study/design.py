"""What a pilot compares: arms, loop counts, seeds, with everything else equal."""

from dataclasses import dataclass
from typing import Any

from loopedge.errors import InputError
from loopedge.model.config import LoopedConfig
from loopedge.study.options import ARMS, LOOKS, UNLOOPED, PilotOptions
from loopedge.tasks.task import Task
from loopedge.trainer.config import TrainConfig, make_model_config, make_train_config

__all__ = ["Cell", "Design", "block_name", "make_design"]

MOST_CELLS = 1000


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
        model: Fields of `LoopedConfig`, the same for all.
        train: Options of `TrainConfig`, the same for all.
        device: Where the models are trained.
    """

    arms: tuple[str, ...]
    loops: tuple[int, ...]
    seeds: int
    first_seed: int
    model: dict[str, Any]
    train: dict[str, Any]
    device: str = "cpu"

    @property
    def cells(self) -> list[Cell]:
        """All runs, seed by seed: a pilot that is stopped early has whole comparisons."""
        return [
            Cell(arm=arm, loops=loops, seed=seed)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for loops in self.loops
            for arm in self.arms
            if arm not in UNLOOPED
            or (loops == self.loops[-1] and loops > 1)  # one untied layer is the looped model
        ]

    def model_config(self, task: Task, cell: Cell) -> LoopedConfig:
        """Return the configuration of a run's model.

        Raises:
            InputError: A field is out of bounds.
        """
        fields = {**self.model, "timestep": ARMS[cell.arm], "loops": cell.loops}
        if cell.arm == "untied":
            fields |= {"layers": fields.get("layers", 1) * cell.loops, "loops": 1}
        return make_model_config(task, **fields)

    def train_config(self, cell: Cell) -> TrainConfig:
        """Return the options of a run.

        Raises:
            InputError: An option is out of bounds.
        """
        return make_train_config(**self.train, seed=cell.seed)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "arms": list(self.arms),
            "loops": list(self.loops),
            "seeds": self.seeds,
            "first_seed": self.first_seed,
            "model": self.model,
            "train": self.train,
            "device": self.device,
        }


def make_design(task: Task, options: PilotOptions) -> Design:
    """Return a design all of whose models and runs can be built.

    Raises:
        InputError: There are too many runs, or a field of a model or a training is out of bounds.
    """
    design = Design(
        arms=tuple(options.arms),
        loops=tuple(sorted(options.loops)),
        seeds=LOOKS[0] if options.seeds == "auto" else options.seeds,
        first_seed=options.first_seed,
        model=options.model or {},
        train=options.train or {},
        device=options.device,
    )
    if len(design.cells) > MOST_CELLS:
        raise InputError(f"the pilot has {len(design.cells)} runs, at most {MOST_CELLS} are made")
    for cell in design.cells:
        design.model_config(task, cell)
        design.train_config(cell)
    return design
