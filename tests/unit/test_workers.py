"""Runs of a pilot in processes of their own end with it, each with its state."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import loopedge
from loopedge.errors import InterruptedRunError
from loopedge.study.runs import workers
from loopedge.tasks.generated.sorting import SortingTask

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


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
                train={"steps": 500, "batch_size": 4, "samples": 8},
            )
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    left = {path.name for path in (folder / "runs").rglob("*") if path.is_file()}
    assert {"model.last.pt"} <= left <= {"model.last.pt", "model.best.pt", "model.metrics.jsonl"}


def test_a_worker_takes_sigterm_where_it_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cell(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(workers, "run_cell", run_cell)
    nothing: Any = None
    try:
        with pytest.raises(SystemExit) as caught:
            workers._work(nothing, nothing, nothing)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == workers.INTERRUPTED
