"""Runs of a pilot on a Ray cluster: tasks go there, files come back, for workers may share no disk with the pilot.

A run is known by its name. A worker that is lost is replaced, and its run begins anew; what comes back is written once,
its result last, so that no run is lost and none counts twice.
"""

import contextlib
import importlib
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import loopedge
from loopedge.errors import InputError, InterruptedRunError, LoopedgeError, MissingExtraError
from loopedge.files.staging import staged_folder
from loopedge.options import by_face, option, option_name
from loopedge.study.design import Cell
from loopedge.study.runs.setup import RunSetup
from loopedge.study.runs.work import Work
from loopedge.study.runs.workers import unfinished
from loopedge.tasks.task import Task

__all__ = ["LOCAL", "check_ray", "run_on_ray"]

LOCAL = "local"
"""The address that starts a cluster on this machine, for as long as the pilot lasts."""
ANSWER_SECONDS = 10.0
RETRIES = 3
"""How often a run begins anew after its worker was lost."""
SENT = ("runs/rates",)
"""Folders of what runs read that others made."""

Files = dict[str, bytes]


def run_on_ray(
    task_of: Callable[[Cell], Task], works: Iterator[Work], setup: RunSetup, address: str, jobs: int
) -> Generator[tuple[Work, dict[str, Any]]]:
    """Make works on a Ray cluster, one on each of its processors; yield each as it ends.

    Args:
        task_of: Returns the task of a run.
        works: What to make; the next is taken as soon as a processor is free.
        setup: What all runs share.
        address: Of the cluster; `LOCAL` starts one here.
        jobs: Processors of a cluster that is started here.

    Raises:
        InputError: No cluster answers at the address.
        InterruptedRunError: Ctrl-C, SIGTERM or SIGHUP; runs under way are ended and begin anew when it is resumed.
        MissingExtraError: Ray is not installed.
    """
    with _own_signals():
        ray = _connected(address, jobs)
    try:
        yield from _made(ray, task_of, works, setup)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "interrupted",
            hint=f"{by_face('the same command', 'the same call')} with {option('resume')}",
        ) from None
    finally:
        ray.shutdown()  # of a cluster elsewhere it ends what this pilot runs there, and nothing else


def check_ray(address: str) -> None:
    """Refuse an address at which nothing answers, before any work: Ray itself would try for minutes.

    Raises:
        InputError: As said.
    """
    if address in (LOCAL, "auto"):
        return
    found = re.fullmatch(r"(?:ray://)?(\[[^]]+\]|[^:/]+):(\d+)", address)
    if found is None:
        raise InputError(
            f"{address} is not the address of a Ray cluster",
            hint=f"{option('ray', 'HOST:6379')}, or {option('ray', LOCAL)} for one on this machine",
        )
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: BaseException) -> InputError:
    return InputError(
        f"no Ray cluster answers at {address}: {_one_line(error)}",
        hint=f"ray start --head on that machine, or {option('ray', LOCAL)}",
    )


def _connected(address: str, jobs: int) -> Any:
    """Return Ray, connected; it reports to nobody how it is used."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # is read when ray is imported
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise MissingExtraError(f"{option_name('ray')}", extra="ray") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if address == LOCAL:
            ray.init(num_cpus=jobs, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _no_answer(address, error) from error
    return ray


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handlers of signals that Ray replaces: who began the pilot decides what they do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _made(
    ray: Any, task_of: Callable[[Cell], Task], works: Iterator[Work], setup: RunSetup
) -> Iterator[tuple[Work, dict[str, Any]]]:
    processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_work)
    block, sent = "", None
    running: dict[Any, Work] = {}
    while True:
        while len(running) < processors and (work := next(works, None)) is not None:
            if work.cell.block != block:  # one copy for all runs of a block
                block, sent = work.cell.block, ray.put(task_of(work.cell))
            read = _read_files(setup.folder, SENT)
            running[remote.remote(sent, work, setup, read, loopedge.__version__)] = work
        if not running:
            return
        for done in ray.wait(list(running), num_returns=1)[0]:
            work = running.pop(done)
            yield work, _outcome(ray, done, work, setup.folder)


def _outcome(ray: Any, done: Any, work: Work, folder: Path) -> dict[str, Any]:
    try:
        files: Files = ray.get(done)
    except ray.exceptions.WorkerCrashedError:
        return unfinished(work, f"its worker was lost {RETRIES + 1} times")
    except ray.exceptions.RayError as error:
        return unfinished(work, _one_line(error))
    _write_files(folder, files)
    result = work.read(folder, failed=True)
    if result is None:
        raise LoopedgeError(f"{work.name} ended and left no result")
    return result


def _work(task: Task, work: Work, setup: RunSetup, read: Files, version: str) -> Files:
    """Make a work in a folder of its own, on a machine of the cluster; return the files that it leaves."""
    if version != loopedge.__version__:
        raise LoopedgeError(
            f"loopedge {loopedge.__version__} is installed on the cluster, {version} here"
        )
    with tempfile.TemporaryDirectory(prefix="loopedge.") as scratch:
        folder = Path(scratch)
        _write_files(folder, read)
        work.make(task, replace(setup, folder=folder, threads=1))
        return {
            name: content
            for name, content in _read_files(folder, (".",)).items()
            if name not in read
        }


def _read_files(folder: Path, parts: tuple[str, ...]) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in parts
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


def _write_files(folder: Path, files: Files) -> None:
    """Write files, results last: where a result stands, all that belongs to it does."""
    for name in sorted(files, key=lambda name: name.endswith(".json")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(path) as staged:
            (staged / path.name).write_bytes(files[name])


def _one_line(error: BaseException) -> str:
    with contextlib.suppress(IndexError):
        return str(error).strip().splitlines()[-1].strip()
    return type(error).__name__
