"""A short training, for a choice alone: only its score on the validation split is kept."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopedge.errors import DivergedError, InterruptedRunError, LoopedgeError
from loopedge.files.json_text import read_json
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.study.design import Cell
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.task import Task
from loopedge.trainer.pipeline import train

__all__ = ["ShortRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortRun:
    """A training with a share of the steps.

    Args:
        cell: What is trained.
        steps_share: Of the steps of a full run.
        rate: Peak learning rate; None: that of the options.
    """

    cell: Cell
    steps_share: float
    rate: float | None = None

    @property
    def name(self) -> str:
        """That of its file: the share is said as its inverse."""
        rate = "" if self.rate is None else f"-lr{self.rate:g}"
        return f"{self.cell.name}-1of{round(1 / self.steps_share)}{rate}"

    def make(self, task: Task, setup: RunSetup) -> dict[str, Any]:
        """Train, and keep the score."""
        place = _place(setup.folder, self.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_suffix("")
        aside.mkdir(exist_ok=True)
        result = self.cell.to_json() | self._attempt(task, setup, aside / "model.pt")
        write_text_atomic(place, dump_json(result) + "\n")
        shutil.rmtree(aside, ignore_errors=True)
        return result

    def read(self, folder: Path, *, failed: bool = False) -> dict[str, Any] | None:
        """Return the score; None where it is not there, or cannot be read: it is made again."""
        place = _place(folder, self.name)
        if not place.exists():
            return None
        result = read_json(place, needed="the score of a short run", hint=f"rm {place}")
        if not isinstance(result, dict) or "status" not in result:
            return None
        return result if failed or result["status"] != "failed" else None

    def _attempt(self, task: Task, setup: RunSetup, model: Path) -> dict[str, Any]:
        design = setup.design
        config = design.train_config(self.cell, self.rate)
        steps = max(1, math.ceil(config.steps * self.steps_share))
        try:
            trained = train(
                task,
                design.model_config(task, self.cell),
                config.model_copy(update={"steps": steps, "checkpoint_every": 0}),
                model,
                threads=setup.threads,
                device=design.device,
                force=True,
            )
        except InterruptedRunError:
            raise
        except DivergedError as error:
            return {"status": "diverged", "reason": error.message, "validation": {}}
        except LoopedgeError as error:
            return {"status": "failed", "reason": error.message, "validation": {}}
        return {"status": "done", "validation": trained.validation, "steps": trained.steps}


def _place(folder: Path, name: str) -> Path:
    return folder / "trials" / f"{name}.json"
