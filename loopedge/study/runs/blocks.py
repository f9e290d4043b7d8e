"""The task of each block of a pilot: drawn with its seed, at its origin."""

from collections.abc import Callable

from loopedge.errors import InputError
from loopedge.options import option_name
from loopedge.study.design import Cell
from loopedge.tasks.series import SeriesTask
from loopedge.tasks.task import Task

__all__ = ["BlockTasks"]


class BlockTasks:
    """Makes the task of a block when it is asked for; those of the last seed are kept.

    Args:
        make_task: Returns the task with a seed.
        origins: Test periods that follow each other at the end of a series; None: one.
    """

    def __init__(self, make_task: Callable[[int], Task], origins: int | None = None) -> None:
        self._make, self._origins = make_task, origins
        self._seed: int | None = None
        self._tasks: list[Task] = []

    def whole(self, seed: int) -> Task:
        """Return the task with a seed; of several origins the last, whose training part is the longest.

        Raises:
            InputError: Several origins are asked of a task that is no forecast, or the rows are too few for them.
        """
        if self._seed != seed:
            task = self._make(seed)
            self._tasks = [task] if self._origins is None else list(self._at_origins(task))
            self._seed = seed
        return self._tasks[-1]

    def of(self, cell: Cell) -> Task:
        """Return the task of a run."""
        self.whole(cell.seed)
        return self._tasks[cell.origin or 0]

    def _at_origins(self, task: Task) -> list[SeriesTask]:
        name = option_name("origins")
        if not isinstance(task, SeriesTask):
            raise InputError(
                f"{name} is of a forecast, the task {task.name} has one test split",
                hint=f"leave out {name}",
            )
        return task.at_origins(self._origins or 1)
