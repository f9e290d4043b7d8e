"""The paper's tasks in sizes that one core trains in a minute or two, one recipe for all three arms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopedge.data.edit_distance import EditDistanceTask
from loopedge.data.sorting import SortingTask
from loopedge.data.task import Task

__all__ = ["ARMS", "STUDIES", "Study"]

ARMS = {"looped": "none", "constant gates": "constant", "timestep encoding": "sinusoidal"}
"""Name of an arm, and what `LoopedConfig.timestep` it stands for."""

MODEL = {
    "d_model": 64,
    "heads": 4,
    "mlp_ratio": 2.0,
    "positions": "rotary",
    # Small models learn little within such budgets from the published start (0.02, closed gates).
    "init_std": 0.09,
    "embedding_std": 0.5,
    "gate_init": 1.0,
}
TRAIN = {"batch_size": 32, "lr": 2e-3, "weight_decay": 0.1, "samples": 2048}


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One task over arms, loop counts and seeds.

    Args:
        title: For people.
        task: Makes the task from a seed.
        steps: Of each run.
        paper: The paper's own numbers, for people.
        model: Fields of the model that differ from `MODEL`.
        train: Options of the run that differ from `TRAIN`.
        loops: Loop counts.
    """

    title: str
    task: Callable[[int], Task]
    steps: int
    paper: str
    model: dict[str, Any]
    train: dict[str, Any]
    loops: tuple[int, ...] = (1, 4, 8)

    def model_fields(self, arm: str, loops: int) -> dict[str, Any]:
        """Return the fields of a run's model."""
        return {**MODEL, **self.model, "loops": loops, "timestep": ARMS[arm]}

    def train_fields(self, seed: int) -> dict[str, Any]:
        """Return the options of a run."""
        every = -(-self.steps // 8)
        return {**TRAIN, "steps": self.steps, "evaluate_every": every, **self.train, "seed": seed}


STUDIES = {
    "edit-distance": Study(
        title="Edit distance, 5 letters of 3, every prefix asked",
        task=lambda seed: EditDistanceTask(length=5, letters=3, prefixes=True, seed=seed),
        steps=1500,
        paper="length 60: untied 41.4 % (12 layers), looped 47.7 % (100 loops), timestep encoding 88.3 %",
        model={},
        train={},
    ),
    "sorting": Study(
        title="Sorting, 10 of 32 tokens (not in the paper: an easy task)",
        task=lambda seed: SortingTask(length=10, vocab=32, seed=seed),
        steps=400,
        paper="-",
        model={},
        train={},
    ),
}
