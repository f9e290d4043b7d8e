"""How a measured process is set up before it serves: where it answers, how it ends, its cores."""

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Answer", "pin", "set_up"]

PR_SET_PDEATHSIG = 1

Answer = Callable[[dict[str, Any]], None]


def set_up(parent: int | None) -> Answer:
    """Set this process up.

    Args:
        parent: Process that this one ends with, however that ends (Linux).

    Returns:
        Writes an answer, a line of JSON, to what was standard output. What libraries print goes to
        standard error from here on.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _die_with(parent)
    _die_first()

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    return answer


def pin(threads: int) -> None:
    """Pin this process to so many cores, where the system can do that, once its runtime is imported.

    ONNX Runtime looks at the cores when it is imported. With one alone it leaves out the fast kernels of a processor with AMX: int8
    products then take twice the time.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(cores[-threads:]))


def _die_with(parent: int | None) -> None:
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it was gone before the kernel knew


def _die_first() -> None:
    """Let the kernel end this process, and not its parent, where the machine's memory runs out (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
