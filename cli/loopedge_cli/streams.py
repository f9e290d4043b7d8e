"""Standard output and standard error as they are found: closed, on a full disk, or of a narrow encoding.

What is written to files stands there whole, whatever becomes of the words about it. So people's notes that
cannot be printed are dropped, and a result that cannot be printed is an error of its own.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loopedge.errors import InputError

__all__ = ["flush_streams", "open_streams", "printing", "say", "unprinted"]

STANDARD = (0, 1, 2)
"""Descriptors of standard input, output and error."""


def open_streams() -> None:
    """Let no character fail, and no file of ours be opened as a stream that was closed at start.

    Characters that the encoding lacks are printed by their numbers, as Python does; JSON is ASCII anyway.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print on standard error, where that can be printed on."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # ValueError: it was closed since
        _discard(sys.stderr)


@contextlib.contextmanager
def printing(written: str | Path | None = None) -> Iterator[None]:
    """Print a result on standard output within the block, and see that it got there.

    Args:
        written: What the command has written, which stays.

    Raises:
        InputError: Standard output is closed, or its disk is full.
        BrokenPipeError: The reader is gone, as behind ``| head``.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise unprinted(None, written)
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise unprinted(error, written) from error


def flush_streams() -> InputError | None:
    """Flush both streams, and return the error of what could not be printed on standard output.

    What cannot be printed is dropped: Python, at its own end, would leave with a code of its own.
    """
    failed = None
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BrokenPipeError:
            _discard(stream)
        except OSError as error:
            _discard(stream)
            if stream is sys.stdout:
                failed = unprinted(error)
    return failed


def unprinted(error: OSError | None, written: str | Path | None = None) -> InputError:
    """Return the error of a result that cannot be printed; None: standard output is closed."""
    reason = "it is closed" if error is None else error.strerror or str(error)
    stays = "" if written is None else f"; {written} is written"
    return InputError(
        f"the result cannot be printed on standard output: {reason}{stays}",
        hint="send it into a file of another disk: > result.txt",
    )


def _discard(stream: Any) -> None:
    """Let a stream lead nowhere, what it still holds included."""
    with contextlib.suppress(
        OSError, ValueError
    ):  # a stream of a program that calls us has no number
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
