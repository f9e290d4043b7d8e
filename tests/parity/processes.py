"""``loopedge`` in several processes that train together, as torchrun starts them, without its start-up."""

import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# The processes are forked from one that has imported what takes long, and has no threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["loopedge.trainer.pipeline", "loopedge_cli.app", "loopedge_cli.views", "torch._dynamo"]
)
LIMIT = 120
"""Seconds after which processes that have not ended count as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a process left; a negative code is the signal that killed it."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Fault:
    """What happens to a process when it draws the batch of a step, counted from 0.

    It sends itself a signal, or, where ``diverges``, its loss is infinite.
    """

    rank: int
    step: int
    number: int = signal.SIGKILL
    diverges: bool = False


@dataclass
class Started:
    """Processes of one run, rank by rank."""

    folder: Path
    processes: list[BaseProcess] = field(default_factory=list)

    def wait(self, seconds: float = LIMIT) -> list[Ended]:
        """Wait until all have ended; those that hang are killed and fail the test."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        hanging = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for rank in hanging:
            self.processes[rank].kill()
            self.processes[rank].join()
        assert not hanging, f"ranks {hanging} hang: {self._printed()}"
        return [
            Ended(process.exitcode if process.exitcode is not None else -1, out, err)
            for process, (out, err) in zip(self.processes, self._printed(), strict=True)
        ]

    def _printed(self) -> list[tuple[str, str]]:
        names = sorted(path.stem for path in self.folder.glob("*.out"))
        return [
            ((self.folder / f"{name}.out").read_text(), (self.folder / f"{name}.err").read_text())
            for name in names
        ]


def start(
    folder: Path,
    *words: object,
    size: int = 2,
    ranks: tuple[int, ...] | None = None,
    fault: Fault | None = None,
    timeout: float = LIMIT,
) -> Started:
    """Run ``loopedge`` with the given words in several processes.

    Args:
        folder: Takes what they print.
        words: Of the command line.
        size: Processes of the run; 1: it knows of no others.
        ranks: Those that are started; default: all.
        fault: What goes wrong.
        timeout: Seconds after which they take each other for lost.
    """
    streams = folder / f"printed-{time.monotonic_ns()}"
    streams.mkdir()
    started = Started(streams)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    for rank in range(size) if ranks is None else ranks:
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), **place} if size > 1 else {}
        own = fault if fault is not None and fault.rank == rank else None
        spelled = [str(word) for word in words]
        process = CONTEXT.Process(
            target=_main, args=(spelled, environment, streams / str(rank), own, timeout)
        )
        process.start()
        started.processes.append(process)
    return started


def run(folder: Path, *words: object, **options: Any) -> list[Ended]:
    """Do as `start`, and wait for all."""
    return start(folder, *words, **options).wait()


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _main(
    words: list[str],
    environment: dict[str, str],
    streams: Path,
    fault: Fault | None,
    timeout: float,
) -> None:
    os.environ.update(environment)
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        target = os.open(f"{streams}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(target, stream.fileno())
    from loopedge.trainer import world
    from loopedge_cli.app import app

    world.TIMEOUT = timedelta(seconds=timeout)
    _improve()
    if fault is not None:
        _plant(fault)
    app(words, prog_name="loopedge")


def _improve() -> None:
    """Let sorting get better with every step, so that the last weights are the best: see `Improving`."""
    from loopedge.tasks.generated import sorting
    from tests.unit.improving import Improving

    sorting.SortingTask = Improving  # type: ignore[misc]


def _plant(fault: Fault) -> None:
    if fault.number == signal.SIGINT:  # a shell ignores it for what runs behind
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from loopedge.tasks.generated.sorting import SortingTask
    from loopedge.tasks.task import Batch, Split
    from loopedge.trainer.steps.objective import Objective

    drawn, loss = SortingTask.batch, Objective.__call__

    def batch(self: SortingTask, split: Split, size: int, step: int) -> Batch:
        if split == "train" and step == fault.step:
            if fault.diverges:
                Objective.__call__ = infinite  # type: ignore[assignment,method-assign]
            else:
                os.kill(os.getpid(), fault.number)
        return drawn(self, split, size, step)

    def infinite(self: Objective, *arguments: Any) -> Any:
        return loss(self, *arguments) * math.inf

    SortingTask.batch = batch  # type: ignore[method-assign]
