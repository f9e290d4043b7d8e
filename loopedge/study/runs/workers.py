"""Runs of a pilot at the same time, each in a process of its own that lives as long as the run.

The pilot alone takes Ctrl-C and SIGHUP, which a terminal sends to all its processes, and hands each run a
SIGTERM: a second signal would end a run at once, without its state. A pilot that is killed can hand on nothing:
each process watches the pilot, and ends itself where that is gone.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterator
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
from loopedge.study.runs.setup import RunSetup
from loopedge.study.runs.work import Work
from loopedge.tasks.task import Task

__all__ = ["INTERRUPTED", "run_at_once", "unfinished"]

INTERRUPTED, ORPHANED = 130, 131
"""Exit codes of a process whose run was interrupted, and of one that could not end by itself after the pilot."""
GRACE_SECONDS = 60.0
"""What a run has to end its step and keep its state after the pilot is gone."""

OF_TERMINALS = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}


def run_at_once(
    task_of: Callable[[Cell], Task], works: Iterator[Work], setup: RunSetup, jobs: int
) -> Generator[tuple[Work, dict[str, Any]]]:
    """Make works, ``jobs`` at a time with one thread each; yield each as it ends.

    A process that is killed is a failed run, which is not written: it is made again when the pilot is
    resumed.

    Args:
        task_of: Returns the task of a run.
        works: What to make; the next is taken as soon as a process is free.
        setup: What all runs share.
        jobs: Processes.

    Raises:
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; the processes are ended first.
    """
    context = multiprocessing.get_context("spawn")  # threads of PyTorch do not survive a fork
    running = dict[SpawnProcess, Work]()
    before = _raise_on(signal.SIGTERM, getattr(signal, "SIGHUP", None))
    try:
        while True:
            for work in itertools.islice(works, jobs - len(running)):
                what = (task_of(work.cell), work, replace(setup, threads=1))
                process = context.Process(target=_work, args=what, daemon=True)
                with _kept_back(OF_TERMINALS):
                    process.start()
                    running[process] = work
            if not running:
                return
            wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                work = running.pop(process)
                yield work, _outcome(process, work, setup.folder)
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


def _work(task: Task, work: Work, setup: RunSetup) -> None:
    _raise_on(signal.SIGTERM)  # while the run trains it is noted, else it ends what is written
    _end_with_parent()
    try:
        work.make(task, setup)
    except (InterruptedRunError, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED) from None


def _end_with_parent() -> None:
    """Ask this process to end, as the pilot would, once the pilot is gone: killed, it says nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE_SECONDS)
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True, name="loopedge-parent").start()


def _outcome(process: SpawnProcess, work: Work, folder: Path) -> dict[str, Any]:
    result = work.read(folder, failed=True)
    if result is not None and process.exitcode == 0:
        return result
    if process.exitcode in {INTERRUPTED, -signal.SIGINT, -signal.SIGTERM}:
        raise KeyboardInterrupt
    if process.exitcode == 0:
        raise LoopedgeError(f"{work.name} ended and left no result")
    reason = f"its process ended with code {process.exitcode}: killed, or out of memory"
    return unfinished(work, reason)


def unfinished(work: Work, reason: str) -> dict[str, Any]:
    """Return the result of what left none."""
    return work.cell.to_json() | {"status": "failed", "reason": reason, "gradient_norm_max": None}
