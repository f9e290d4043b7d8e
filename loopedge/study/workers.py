"""Runs of a pilot at the same time, each in a process of its own that lives as long as the run."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from loopedge.errors import InterruptedRunError, LoopedgeError
from loopedge.study.cell import Quantize, read_cell, run_cell
from loopedge.study.design import Cell, Design
from loopedge.tasks.task import Task

__all__ = ["run_at_once"]

INTERRUPTED = 130


def run_at_once(
    tasks: Mapping[int, Task],
    design: Design,
    cells: Sequence[Cell],
    folder: Path,
    quantize: Quantize,
    jobs: int,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Make runs, ``jobs`` at a time with one thread each; yield each as it ends.

    A process that is killed is a failed run, which is not written: it is made again when the pilot is
    resumed.

    Args:
        tasks: By seed.
        design: The options of all runs.
        cells: What to run.
        folder: Of the pilot.
        quantize: As in `run_cell`.
        jobs: Processes.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; the processes are ended first.
    """
    context = multiprocessing.get_context("spawn")  # threads of PyTorch do not survive a fork
    waiting, running = list(cells), dict[SpawnProcess, Cell]()
    before = _raise_on_term()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                work = (tasks[cell.seed], design, cell, folder, quantize)
                process = context.Process(target=_work, args=work, daemon=True)
                process.start()
                running[process] = cell
            wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                cell = running.pop(process)
                yield cell, _outcome(process, cell, folder)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted", hint="the same command with --resume") from None
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _raise_on_term() -> Any:
    """Take SIGTERM as Ctrl-C, so that no process is left behind; return what was there before."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, interrupt)


def _work(task: Task, design: Design, cell: Cell, folder: Path, quantize: Quantize) -> None:
    try:
        run_cell(task, design, cell, folder, quantize, threads=1)
    except (InterruptedRunError, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED) from None


def _outcome(process: SpawnProcess, cell: Cell, folder: Path) -> dict[str, Any]:
    told = read_cell(folder, cell, failed=True)
    if told is not None and process.exitcode == 0:
        return told
    if process.exitcode in {INTERRUPTED, -signal.SIGINT, -signal.SIGTERM}:
        raise KeyboardInterrupt
    if process.exitcode == 0:
        raise LoopedgeError(f"{cell.name} ended and left no result")
    reason = f"its process ended with code {process.exitcode}: killed, or out of memory"
    return cell.to_json() | {"status": "failed", "reason": reason, "gradient_norm_max": None}
