"""The runs of a pilot: those that are missing are made, one by one or several at once."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from loopedge.study.design import Cell
from loopedge.study.runs.cell import RunSetup, read_cell, run_cell
from loopedge.study.runs.workers import run_at_once
from loopedge.tasks.task import Task
from loopedge.trainer.progress import duration_text, scores_text

__all__ = ["run_cells"]


def run_cells(
    make_task: Callable[[int], Task],
    setup: RunSetup,
    *,
    jobs: int,
    add_note: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Make the runs that are missing.

    Args:
        make_task: Returns the task with a seed.
        setup: What all runs share.
        jobs: Runs at the same time.
        add_note: Takes a line per run.

    Returns:
        The results of all runs, in the order of the design.

    Raises:
        InterruptedRunError: The finished runs are kept.
    """
    found = {cell: read_cell(setup.folder, cell) for cell in setup.design.cells}
    missing = [cell for cell, result in found.items() if result is None]
    done, started = len(found) - len(missing), time.perf_counter()
    if done:
        add_note(f"{done} of {len(found)} runs are kept")
    if jobs == 1:
        runs = _one_by_one(make_task, missing, setup)
    else:
        tasks = {seed: make_task(seed) for seed in {cell.seed for cell in missing}}
        runs = run_at_once(tasks, missing, setup, jobs)
    for made, (cell, result) in enumerate(runs, 1):
        found[cell] = result
        left = (time.perf_counter() - started) / made * (len(missing) - made)
        time_left = f", {duration_text(left)} left" if made < len(missing) else ""
        add_note(f"run {done + made} of {len(found)}: {cell.name}: {_outcome(result)}{time_left}")
    return [result for result in found.values() if result is not None]


def _one_by_one(
    make_task: Callable[[int], Task], cells: list[Cell], setup: RunSetup
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    task: Task | None = None
    for cell in cells:
        if task is None or task.seed != cell.seed:
            task = make_task(cell.seed)
        yield cell, run_cell(task, cell, setup)


def _outcome(result: dict[str, Any]) -> str:
    if result["status"] != "done":
        return f"{result['status']}, {result['reason']}"
    return scores_text(result["test"])
