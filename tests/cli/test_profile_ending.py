"""A profile that is ended from outside leaves no process and no file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
PATIENCE_S = 30


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "loopedge_cli.main", "profile", str(TINY), "--seconds", "60"]
    process = subprocess.Popen(
        [*command, "--untied"],
        env={**os.environ, "TMPDIR": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        measured = _children(process.pid)
        assert [folder.name.split(".")[0] for folder in tmp_path.iterdir()] == ["loopedge"]
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    _, left = psutil.wait_procs(measured, timeout=PATIENCE_S)  # one that just begins ends itself
    assert left == []


def _children(pid: int) -> list[psutil.Process]:
    """Wait until the process has started others that measure."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found: list[psutil.Process] = psutil.Process(pid).children()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing was measured")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_an_interrupt_while_python_imports_is_one_line(tmp_path: Path, seconds: float) -> None:
    program = (
        "print('started', flush=True)\nfrom loopedge_cli.main import main\nmain()\n"  # the script
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "profile", str(TINY), "--seconds", "60"],
        env={**os.environ, "TMPDIR": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []
