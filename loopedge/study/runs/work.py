"""What one process of a pilot makes at a time: a run, or a short one that a choice needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loopedge.study.design import Cell
from loopedge.study.runs.cell import read_cell, run_cell
from loopedge.study.runs.setup import RunSetup
from loopedge.tasks.task import Task

__all__ = ["FullRun", "Work"]


class Work(Protocol):
    """Something that is made once and leaves a file: another process, or a later call, reads it there."""

    @property
    def cell(self) -> Cell:
        """What it is of."""
        ...

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def steps_share(self) -> float:
        """Its steps, as a share of those of a full run."""
        ...

    def make(self, task: Task, setup: RunSetup) -> dict[str, Any]:
        """Make it and leave its file.

        Raises:
            InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP.
        """
        ...

    def read(self, folder: Path, *, failed: bool = False) -> dict[str, Any] | None:
        """Return what its file says; None where there is none, or it failed and ``failed`` is not set."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRun:
    """A run of the pilot: it is trained, exported, quantized and judged."""

    cell: Cell
    steps_share: float = 1.0

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.cell.name

    def make(self, task: Task, setup: RunSetup) -> dict[str, Any]:
        """Train, export, quantize and judge."""
        return run_cell(task, self.cell, setup)

    def read(self, folder: Path, *, failed: bool = False) -> dict[str, Any] | None:
        """Return what stands in ``cell.json``."""
        return read_cell(folder, self.cell, failed=failed)
