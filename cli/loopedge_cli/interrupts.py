"""Ctrl-C while Python imports: it ends the process at once, with one line.

Raised in the midst of an import, KeyboardInterrupt may pass through the initialization of a module in C,
which ends in an ImportError that says nothing, or in a crash. No file and no process of ours is there yet.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

__all__ = ["end_at_once", "ending_at_once", "raise_as_exception"]

INTERRUPTED = 130  # as in `loopedge_cli.exits`, which is not imported yet


def end_at_once() -> None:
    """From here on Ctrl-C ends the process, where it is not ignored or taken by somebody else."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_as_exception() -> None:
    """Undo `end_at_once`: from here on Ctrl-C raises KeyboardInterrupt, so that work is cleaned up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process within a block that only imports."""
    end_at_once()
    try:
        yield
    finally:
        raise_as_exception()


def _end(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)
