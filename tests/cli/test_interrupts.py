"""Ctrl-C, SIGTERM and SIGHUP end every command alike: 130, one line, nothing left. Sent at known points."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest

import loopedge
from loopedge.runtime.decoding.interruptible_run import run_interruptibly
from loopedge_cli import interrupts
from loopedge_cli.main import main
from tests.cli.tied_files import write_tied
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Call = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Begin as a process of a terminal does, whatever runs the tests, and put all back."""
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    for number in interrupts.ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program as its entry does; return its exit code and what it said on standard error."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["loopedge", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return run


def sends(number: int, then: Callable[..., Any] = lambda *given: None) -> Callable[..., Any]:
    """Return a function that sends this process a signal, then does what it replaces."""

    def send(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        return then(*given, **named)

    return send


WRITERS = {
    "reroll": ("tied.onnx", "-o", "out.onnx"),
    "quantize": ("tiny.onnx", "-o", "out.onnx"),
    "convert": ("tiny.onnx", "-o", "out.ort"),
    "prepare": ("tiny.onnx", "-o", "out.onnx"),
    "run": ("tiny.onnx", "-i", "x.npz", "-o", "out.npz"),
    "unroll": ("tiny.onnx", "-o", "out.onnx"),
}


@pytest.mark.slow
@pytest.mark.parametrize("number", interrupts.ENDING)
@pytest.mark.parametrize("command", WRITERS)
def test_a_command_that_writes_leaves_what_was_there(
    call: Call,
    tiny: Path,
    ids: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    number: int,
) -> None:
    monkeypatch.chdir(tiny.parent)
    write_tied(tiny.parent / "tied.onnx")
    (tiny.parent / WRITERS[command][-1]).write_text("before")
    before = {path.name: path.read_bytes() for path in tiny.parent.iterdir()}
    monkeypatch.setattr(os, "fsync", sends(number, os.fsync))  # what was staged is synced
    assert call(command, *WRITERS[command], "--force") == (130, "error: interrupted\n")
    assert {path.name: path.read_bytes() for path in tiny.parent.iterdir()} == before


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_profile_leaves_no_process_and_no_file(
    call: Call, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from loopedge.profiler.processes.measured_process import MeasuredProcess

    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    started: list[Any] = []

    def run(self: MeasuredProcess, runs: int) -> list[float]:
        started.append(self._process)
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    monkeypatch.setattr(MeasuredProcess, "run", run)
    assert call("profile", tiny, "--untied") == (130, "error: interrupted\n")
    assert started
    assert all(process.returncode is not None for process in started)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_prompt_that_is_computed_is_ended(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = write_generate_file(GenerateModel(), tmp_path / "lm.onnx")

    class Computes:
        """A session that computes a prompt until it is told to stop."""

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            os.kill(os.getpid(), number)
            while not options.terminate:
                time.sleep(0.01)

    def run(session: Any, binding: Any) -> None:
        computes: Any = Computes()
        run_interruptibly(computes, binding)

    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.run_interruptibly", run)
    said = call("generate", path, "--prompt", "The loop", "--new-tokens", 3)
    assert said == (130, "error: interrupted\n")


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_run_keeps_its_state(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from loopedge.tasks.generated.sorting import SortingTask

    drawn = SortingTask.batch

    def batch(self: SortingTask, split: Any, size: int, step: int) -> Any:
        if (split, step) == ("train", 1):
            os.kill(os.getpid(), number)
        return drawn(self, split, size, step)

    monkeypatch.setattr(SortingTask, "batch", batch)
    words = ("--length", 4, "--vocab", 6, "--d-model", 8, "--heads", 2, "--loops", 1, "--steps", 9)
    code, said = call("train", "sorting", *words, "--quiet", "-o", tmp_path / "m.pt")
    assert code == 130
    assert "interrupted after step 2 of 9" in said
    assert (tmp_path / "m.last.pt").exists()
    assert not (tmp_path / "m.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_at_start_stays_ignored(
    call: Call, tiny: Path, ids: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As ``nohup`` ignores SIGHUP."""
    signal.signal(number, signal.SIG_IGN)
    target = tiny.with_name("out.npz")
    monkeypatch.setattr(os, "fsync", sends(number, os.fsync))
    assert call("run", tiny, "-i", ids, "-o", target)[0] == 0
    assert target.exists()


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_within_a_block_of_imports_a_signal_ends_the_process(number: int) -> None:
    """And before, and after the command: at each of these points nothing of ours is there."""
    after = {
        "start": "interrupts.end_at_once()",
        "imports": "interrupts.end_at_once(); interrupts.raise_as_exception()\n"
        "with interrupts.ending_at_once():\n    os.kill(os.getpid(), number)",
        "end": "interrupts.end_at_once(); interrupts.raise_as_exception(); interrupts.end_at_once()",
    }
    reset = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    for steps in after.values():
        program = (
            f"import os, signal\nfrom loopedge_cli import interrupts\nnumber = {int(number)}\n"
            f"{reset}\n{steps}\nos.kill(os.getpid(), number)\nprint('goes on')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_handlers_of_others_are_left_alone() -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    interrupts.end_at_once()
    with interrupts.ending_at_once():
        assert signal.getsignal(signal.SIGTERM) is mine
    interrupts.raise_as_exception()
    assert signal.getsignal(signal.SIGTERM) is mine
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_of_imports_in_the_process_of_another_program_takes_ctrl_c_alone() -> None:
    before = {number: signal.getsignal(number) for number in interrupts.ENDING}
    with interrupts.ending_at_once():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert {number: signal.getsignal(number) for number in interrupts.ENDING} == before


def test_a_pilot_is_interrupted_while_it_exports(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.study.runs.cell.export", sends(signal.SIGTERM, loopedge.export))
    words = ("sorting", "--length", 4, "--vocab", 6, "--d-model", 8, "--heads", 2, "--steps", 1)
    pilot = ("--loops", 1, "--seeds", 1, "--lr", 1e-3, "-o", tmp_path / "p", "--quiet")
    ended = call("pilot", *words, *pilot)
    assert ended == (130, "error: interrupted\n")
    names = {path.name for path in (tmp_path / "p" / "runs").rglob("*") if path.is_file()}
    assert names == {"model.pt", "model.metrics.jsonl", "samples.npz"}
    assert (tmp_path / "p" / "report.html").exists()  # of what there is
