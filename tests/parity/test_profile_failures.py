"""What a profile does when a process dies, when a twin cannot be made, and when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import loopedge
from loopedge.errors import InputError, LoopedgeError
from loopedge.profiler.processes import measured_process, turns
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
from loopedge.profiler.processes.turns import Measurement, Schedule, measure
from loopedge.profiler.subjects import building

Exporter = Callable[..., Path]
QUICK: dict[str, Any] = {"sequence": 4, "runs": 2, "processes": 1, "details": False}
PATIENCE_S = 60
"""Seconds after which what is waited for counts as missing: far more than it takes."""


def setup_of(model: Path, folder: Path) -> ProcessSetup:
    inputs = folder / "x.npz"
    np.savez(inputs, input_ids=np.ones((1, 4), np.int64))
    return ProcessSetup(
        model=model,
        inputs=inputs,
        file_bytes=model.stat().st_size,
        provider="CPUExecutionProvider",
        threads=1,
    )


class _Dying(MeasuredProcess):
    """A process that the system kills at its second run."""

    def run(self, runs: int) -> list[float]:
        if hasattr(self, "warmed_up"):
            self._process.kill()
        self.warmed_up = True
        return super().run(runs)


@pytest.mark.slow
def test_a_killed_process_is_reported_and_the_rest_is_measured(
    exported: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [exported("tokens"), exported("tokens", form="unrolled")]
    first = [setup_of(model, tmp_path) for model in models]

    def start(setup: ProcessSetup) -> MeasuredProcess:
        kind = _Dying if setup.model == models[0] else MeasuredProcess
        return kind(setup)

    monkeypatch.setattr(turns, "MeasuredProcess", start)
    killed, whole = measure(first, Schedule(processes=2, runs=6, seconds=1.0))
    assert isinstance(killed, LoopedgeError)
    assert "killed by SIGKILL, most likely for want of memory" in killed.message
    assert isinstance(whole, Measurement)
    assert whole.processes == 2
    assert whole.latency_ms.runs == 6
    assert whole.time_ratio == 1.0, "the first that was measured is the reference"


@pytest.mark.slow
def test_a_process_without_memory_says_so(exported: Exporter, tmp_path: Path) -> None:
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -v 700000\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    model, inputs = exported("tokens"), tmp_path / "x.npz"
    np.savez(inputs, input_ids=np.ones((100_000, 8), np.int64))
    with (
        MeasuredProcess(ProcessSetup(model=model, inputs=inputs), python=limited) as process,
        pytest.raises(LoopedgeError, match="ran out of memory"),
    ):
        process.run(1)


@pytest.mark.parametrize(
    "said", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 9"]
)
def test_what_runtimes_say_without_memory_is_understood(said: str) -> None:
    assert any(
        word in f"RuntimeException: {said}".lower() for word in measured_process.OUT_OF_MEMORY
    )


@pytest.mark.slow
def test_a_model_that_does_not_load_is_one_of_the_failures(
    exported: Exporter, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    good = exported("tokens")
    content = bytearray(good.read_bytes())
    damaged.write_bytes(bytes(content).replace(b"Attention", b"Attentiom"))
    for file in good.parent.glob("*.data"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = loopedge.profile([damaged, good], **QUICK)
    (failure,), (run,) = result.failures, result.runs
    assert failure.path == str(damaged)
    assert "cannot be profiled" in failure.reason
    assert run.time_ratio == 1.0
    with pytest.raises(InputError, match="cannot be profiled"):
        loopedge.profile([damaged], **QUICK)


@pytest.mark.slow
def test_a_twin_that_cannot_be_made_is_one_of_the_failures(exported: Exporter) -> None:
    stops = exported("tokens", exit="tolerance=1e-3")
    result = loopedge.profile([exported("tokens"), stops], untied=True, **QUICK)
    assert [(run.twin, run.form) for run in result.runs] == [
        (None, "loop"),
        (None, "loop"),
        ("untied", "unrolled"),
    ]
    (failure,) = result.failures
    assert failure.twin == "untied"
    assert "stops early" in failure.reason
    with pytest.raises(InputError, match="stops early"):
        loopedge.profile([stops], untied=True, **QUICK)
    with pytest.raises(InputError, match="unrolled already"):
        loopedge.profile([exported("tokens", form="unrolled")], unrolled=True, **QUICK)


def test_a_checkpoint_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(InputError, match="an exported model has to stand beside it"):
        loopedge.profile([tmp_path / "model.pt"])
    assert building.CHECKPOINT == ".pt"


PARENT = """
import signal
import sys
from pathlib import Path
from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs behind
with MeasuredProcess(
    ProcessSetup(model=Path(sys.argv[1]), inputs=Path(sys.argv[2]))
) as process:
    print(process._process.pid, flush=True)
    process.run(10**9)
"""


def _wait_for_work(process: psutil.Process) -> None:
    """Wait until a process that had nothing to do works: its processor time grows."""
    before, end = process.cpu_times().user, time.monotonic() + PATIENCE_S
    while process.cpu_times().user < before + 0.05:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_profile(
    exported: Exporter, tmp_path: Path, sent: signal.Signals
) -> None:
    setup = setup_of(exported("tokens"), tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(setup.model), str(setup.inputs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    _wait_for_work(child)  # it is within a command that does not end
    os.kill(parent.pid, sent)
    with parent:
        parent.wait(timeout=PATIENCE_S)
    child.wait(timeout=PATIENCE_S)
    assert not child.is_running()
