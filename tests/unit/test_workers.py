"""Runs of a pilot in processes of their own end with it, each with its state."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import loopedge
from loopedge.errors import InterruptedRunError
from loopedge.study.design import Cell
from loopedge.study.runs import work, workers
from loopedge.tasks.generated.sorting import SortingTask

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


class Waiting(SortingTask):
    """Says in which process it trains, and lets that go on for long."""

    def __init__(self, fifo: Path) -> None:
        super().__init__(length=4, vocab=6)
        self.fifo = fifo

    def batch(self, split: Any, size: int, step: int) -> Any:
        if (split, step) == ("train", 2):
            self.fifo.write_text(f"{os.getpid()}\n")
        return super().batch(split, size, step)


class Ending(SortingTask):
    """Sends the pilot a signal, as a terminal does, while the batch of a step is drawn."""

    number: int = signal.SIGTERM

    def __init__(self, number: int, *, of_terminal: bool) -> None:
        super().__init__(length=4, vocab=6)
        self.number, self.of_terminal = number, of_terminal

    def batch(self, split: Any, size: int, step: int) -> Any:
        if (split, step) == ("train", 2):
            if self.of_terminal:  # to each process of its group
                os.kill(os.getpid(), self.number)
            os.kill(os.getppid(), self.number)
        return super().batch(split, size, step)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_state_of_a_run_is_kept_whoever_gets_the_signal(tmp_path: Path, number: int) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder = tmp_path / "p"
    try:
        with pytest.raises(InterruptedRunError):
            loopedge.pilot(
                lambda seed: Ending(number, of_terminal=number != signal.SIGTERM),
                folder,
                loops=[1],
                arms=["looped"],
                seeds=1,
                jobs=2,
                model={"d_model": 8, "heads": 2},
                train={"steps": 500, "batch_size": 4, "samples": 8, "lr": 1e-3},
            )
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    left = {path.name for path in (folder / "runs").rglob("*") if path.is_file()}
    assert {"model.last.pt"} <= left <= {"model.last.pt", "model.best.pt", "model.metrics.jsonl"}


PILOT = """
import sys
from pathlib import Path
import loopedge
from tests.unit.test_workers import Waiting

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    loopedge.pilot(
        lambda seed: Waiting(folder / "fifo"), folder / "p", loops=[1], arms=["looped"], seeds=1, jobs=2,
        model={"d_model": 8, "heads": 2}, train={"steps": 1_000_000, "batch_size": 4, "samples": 8, "lr": 1e-3},
    )
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process of another parent")
def test_a_pilot_that_is_killed_leaves_no_process_that_trains_on(tmp_path: Path) -> None:
    (tmp_path / "pilot.py").write_text(PILOT)
    os.mkfifo(tmp_path / "fifo")
    words = [sys.executable, str(tmp_path / "pilot.py"), str(tmp_path)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}) as killed:
        worker = int((tmp_path / "fifo").read_text())  # waits until it trains
        watched = os.pidfd_open(worker)
        killed.kill()
    assert worker != killed.pid
    assert select.select([watched], [], [], 120)[0], "it trains on"
    os.close(watched)
    (run,) = (tmp_path / "p" / "runs").iterdir()
    assert (run / "model.last.pt").exists()  # it ended as if it had been asked to


def test_a_worker_takes_sigterm_where_it_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cell(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(work, "run_cell", run_cell)
    nothing: Any = None
    run = work.FullRun(cell=Cell(arm="looped", loops=1, seed=0))
    try:
        with pytest.raises(SystemExit) as caught:
            workers._work(nothing, run, nothing)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == workers.INTERRUPTED
