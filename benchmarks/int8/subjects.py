"""The trained models that the int8 benchmarks judge: one definition for all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plain_looped import PlainSorting

import loopedge
from loopedge.tasks.generated.edit_distance import EditDistanceTask
from loopedge.tasks.generated.sorting import SortingTask
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task
from loopedge.trainer.config import make_model_config, make_train_config
from loopedge.trainer.pipeline import train

__all__ = ["Subject", "edit_distance", "plain_sorting", "sorting", "subjects", "sunspots"]

SUNSPOTS = Path(__file__).parents[2] / "examples" / "data" / "sunspots.csv"


@dataclass(frozen=True)
class Subject:
    """A task, how its model is made, and how it is trained."""

    name: str
    task: Task
    model: dict[str, Any]
    training: dict[str, Any]

    def export(self, folder: Path, path: Path, **options: object) -> None:
        """Train, unless the checkpoint is in the folder, and export to ``path``."""
        checkpoint = folder / f"{self.name.replace(' ', '-')}.pt"
        if not checkpoint.exists():
            config = make_model_config(self.task, **self.model)
            train(self.task, config, make_train_config(**self.training), checkpoint)
        loopedge.export(checkpoint, path, force=True, **options)  # type: ignore[arg-type]


def sorting() -> Subject:
    """Return the subject with timestep encoding, whose ranges drift a little.

    What a linear reads is bounded by the norm before it, so only the norm's weights, the timestep
    table, can make it drift. The sinusoidal generator gives the first iterations large weights,
    two to five times those of the last; a learned table hardly leaves 1, and without a table the
    ranges stand still.
    """
    return Subject(
        "sorting",
        SortingTask(length=12, vocab=24),
        {"d_model": 64, "heads": 4, "loops": 8, "timestep": "sinusoidal"},
        {"steps": 1200, "batch_size": 64, "lr": 2e-3},
    )


def edit_distance() -> Subject:
    """Return the subject whose answer is read at the last position, padding masked.

    79 % of four-letter pairs after 8000 steps; the first 2000 or so stay on a plateau at 37 %.
    """
    return Subject(
        "edit distance",
        EditDistanceTask(length=4),
        {"d_model": 64, "heads": 4, "loops": 6, "positions": "rotary", "timestep": "none"},
        {"steps": 8000, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.1},
    )


def sunspots() -> Subject:
    """Return the forecaster."""
    return Subject(
        "sunspots",
        SeriesTask.from_file(SUNSPOTS, targets=["sunspots"], context=48, horizon=12),
        {"d_model": 64, "heads": 4, "loops": 8},
        {"steps": 300, "batch_size": 32, "lr": 1e-3},
    )


def plain_sorting() -> PlainSorting:
    """Return the subject without norms, whose ranges grow with the state, five to twenty times."""
    return PlainSorting()


def subjects() -> list[Subject | PlainSorting]:
    """Return all of them."""
    return [plain_sorting(), sorting(), edit_distance(), sunspots()]
