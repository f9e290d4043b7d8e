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
PATIENCE_S = 120
"""Seconds after which a process counts as hanging."""


@pytest.mark.slow
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


INTERRUPTED = """
import os, signal, sys
name = sys.argv.pop()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
def interrupt(event, details):
    if event == "import" and details[0] == name:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
from loopedge_cli.main import main  # what the script of the package does
main()
"""
IMPORTED = (
    *("typer", "loopedge_cli.app", "numpy", "numpy._core._multiarray_umath", "onnx_ir"),
    *("onnx", "onnx.onnx_cpp2py_export", "onnxruntime"),
)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", IMPORTED)
def test_an_interrupt_while_python_imports_is_one_line(tmp_path: Path, name: str) -> None:
    """The signal comes when the package is looked for: early, late, and within modules in C."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "profile", str(TINY), "--seconds", "60", name],
        env={**os.environ, "TMPDIR": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []
