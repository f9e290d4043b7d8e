"""Runs of a pilot at the same time, each in a process of its own that lives as long as the run.

The pilot alone takes Ctrl-C and SIGHUP, which a terminal sends to all its processes, and hands each run a
SIGTERM: a second signal would end a run at once, without its state.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from loopedge.errors import InterruptedRunError, LoopedgeError
from loopedge.options import by_face, option
from loopedge.study.design import Cell
from loopedge.study.runs.cell import RunSetup, read_cell, run_cell
from loopedge.tasks.task import Task

__all__ = ["run_at_once"]

INTERRUPTED = 130

OF_TERMINALS = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}


def run_at_once(
    tasks: Mapping[int, Task], cells: Sequence[Cell], setup: RunSetup, jobs: int
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Make runs, ``jobs`` at a time with one thread each; yield each as it ends.

    A process that is killed is a failed run, which is not written: it is made again when the pilot is
    resumed.

    Args:
        tasks: By seed.
        cells: What to run.
        setup: What all runs share.
        jobs: Processes.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; the processes are ended first.
    """
    context = multiprocessing.get_context("spawn")  # threads of PyTorch do not survive a fork
    waiting, running = list(cells), dict[SpawnProcess, Cell]()
    before = _raise_on(signal.SIGTERM, getattr(signal, "SIGHUP", None))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                work = (tasks[cell.seed], cell, replace(setup, threads=1))
                process = context.Process(target=_work, args=work, daemon=True)
                with _kept_back(OF_TERMINALS):
                    process.start()
                    running[process] = cell
            wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                cell = running.pop(process)
                yield cell, _outcome(process, cell, setup.folder)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "interrupted",
            hint=f"{by_face('the same command', 'the same call')} with {option('resume')}",
        ) from None
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_on(*numbers: int | None) -> dict[int, Any]:
    """Take signals as Ctrl-C, so that no process is left behind; return what was there before.

    One that is ignored, or that somebody takes already, stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    known = [number for number in numbers if number is not None]
    taken = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    return {number: signal.signal(number, interrupt) for number in taken}


@contextlib.contextmanager
def _kept_back(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Keep signals back: they come after the block, and never to a process that is started in it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started within, it would let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(task: Task, cell: Cell, setup: RunSetup) -> None:
    _raise_on(signal.SIGTERM)  # while the run trains it is noted, else it ends what is written
    try:
        run_cell(task, cell, setup)
    except (InterruptedRunError, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED) from None


def _outcome(process: SpawnProcess, cell: Cell, folder: Path) -> dict[str, Any]:
    result = read_cell(folder, cell, failed=True)
    if result is not None and process.exitcode == 0:
        return result
    if process.exitcode in {INTERRUPTED, -signal.SIGINT, -signal.SIGTERM}:
        raise KeyboardInterrupt
    if process.exitcode == 0:
        raise LoopedgeError(f"{cell.name} ended and left no result")
    reason = f"its process ended with code {process.exitcode}: killed, or out of memory"
    return cell.to_json() | {"status": "failed", "reason": reason, "gradient_norm_max": None}
