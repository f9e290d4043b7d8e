"""Run the user's code: what it raises becomes one line that names the method and the line of code."""

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

import loopedge
from loopedge.errors import InputError, LoopedgeError

__all__ = ["FOREIGN_CODE", "reason_of", "run_user_code", "users_line"]

FOREIGN_CODE = (
    str(Path(torch.__file__).parent),
    str(Path(loopedge.__file__).parent / "exporter"),
    str(Path(loopedge.__file__).parent / "model" / "inner.py"),
    "<",
)
"""Whose lines are not the user's: PyTorch's, the exporter's, that of `inner_loop`, and Python's own."""


def run_user_code(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of the user's module on its example inputs, without gradients.

    Raises:
        InputError: It fails; the message names it and the line.
    """
    try:
        with torch.no_grad():
            return method(*arguments)
    except LoopedgeError:
        raise
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"{name} fails on the example inputs: {reason_of(error)}",
            hint="axis 0 of an example is the batch and axis 1 the sequence; docs/bring_your_own.md",
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the kind and the first line of an error, and the user's line of code that raised it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = users_line(error.__traceback__)
    told = type(error).__name__ + (f": {lines[0]}" if lines else "")
    return f"{told} ({where})" if where else told


def users_line(trace: TracebackType | None) -> str:
    """Return the innermost line that is neither PyTorch's nor ours, as ``file.py, line N``."""
    for frame in reversed(traceback.extract_tb(trace)):
        if not frame.filename.startswith(FOREIGN_CODE):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""
