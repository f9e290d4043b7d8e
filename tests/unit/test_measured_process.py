"""What a measured process is spared: threads of the runtime that serve no model."""

import sys
from pathlib import Path

import numpy as np
import pytest

from loopedge.profiler.processes.measured_process import MeasuredProcess
from loopedge.profiler.processes.setup import ProcessSetup

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"


def start(folder: Path) -> MeasuredProcess:
    inputs = folder / "x.npz"
    np.savez(inputs, input_ids=np.ones((1, 5), np.int64))
    return MeasuredProcess(ProcessSetup(model=TINY, inputs=inputs))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells threads on Linux")
def test_nothing_but_the_model_runs_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"):
        monkeypatch.delenv(name, raising=False)  # each of them silences the telemetry as well
    with start(tmp_path) as process:
        environment = Path(f"/proc/{process._process.pid}/environ").read_bytes().split(b"\0")
    assert b"ORT_DISABLE_TELEMETRY=1" in environment


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells threads on Linux")
def test_no_thread_beside_its_own_changes_its_memory_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reports takes memory seconds later; it is not there, which needs no waiting."""
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"):
        monkeypatch.delenv(name, raising=False)
    with start(tmp_path) as process:
        process.run(3)
        threads = [*Path(f"/proc/{process._process.pid}/task").iterdir()]
    assert len(threads) == 1
