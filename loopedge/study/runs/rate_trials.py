"""All trials of learning rates of an arm at a loop count, as one work: a process loads PyTorch once for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.study.design import Cell, Design
from loopedge.study.runs.learning_rate import Trial, trials_of
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.task import Task

__all__ = ["RateTrials", "rate_trials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTrials:
    """Trials of an arm at a loop count, one for each rate."""

    trials: tuple[Trial, ...]

    @property
    def cell(self) -> Cell:
        """What they train."""
        return self.trials[0].cell

    @property
    def name(self) -> str:
        """The arm and the loop count."""
        return f"{self.cell.arm}-r{self.cell.loops}"

    @property
    def steps_share(self) -> float:
        """Their steps together, as a share of those of a full run."""
        return sum(trial.steps_share for trial in self.trials)

    def make(self, task: Task, setup: RunSetup) -> dict[str, Any]:
        """Make those that are missing."""
        for trial in self.trials:
            if trial.read(setup.folder) is None:
                trial.make(task, setup)
        return self.read(setup.folder, failed=True) or {}

    def read(self, folder: Path, *, failed: bool = False) -> dict[str, Any] | None:
        """Return the results of all by rate; None where one is missing."""
        results = {f"{trial.rate:g}": trial.read(folder, failed=failed) for trial in self.trials}
        return {"status": "done", "trials": results} if all(results.values()) else None


def rate_trials(design: Design) -> list[RateTrials]:
    """Return the trials of a pilot by arm and loop count; none where there is one rate."""
    found: dict[Cell, list[Trial]] = {}
    for trial in trials_of(design):
        found.setdefault(trial.cell, []).append(trial)
    return [RateTrials(trials=tuple(trials)) for trials in found.values()]
