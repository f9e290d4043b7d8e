"""The signals that ask a command to end: Ctrl-C, SIGTERM, and SIGHUP where it was not ignored at start.

Each ends every command alike: one line, exit code 130, and nothing of ours left behind. While Python
imports, that happens at once: raised in the midst of an import, KeyboardInterrupt may pass through the
initialization of a module in C, which ends in an ImportError that says nothing, or in a crash. No file and
no process of ours is there yet. While a command works, KeyboardInterrupt is raised, so that it cleans up.

A signal that is ignored stays ignored: ``nohup`` ignores SIGHUP, a shell Ctrl-C for what runs behind.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

__all__ = ["end_at_once", "ending_at_once", "raise_as_exception"]

INTERRUPTED = 130  # as in `loopedge_cli.exits`, which is not imported yet

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def end_at_once() -> None:
    """From here on the signals end the process, where they are not ignored or taken by somebody else."""
    for number in ENDING:
        before = signal.getsignal(number)
        if before in (signal.default_int_handler, _raise) or (
            before is signal.SIG_DFL and number != signal.SIGINT
        ):
            signal.signal(number, _end)


def raise_as_exception() -> None:
    """Undo `end_at_once`: from here on the signals raise KeyboardInterrupt, so that work is cleaned up."""
    for number in ENDING:
        if signal.getsignal(number) is _end:
            handler = signal.default_int_handler if number == signal.SIGINT else _raise
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let the signals that raise end the process within a block that only imports."""
    before = {number: signal.getsignal(number) for number in ENDING}
    raising = [
        number for number in ENDING if before[number] in (signal.default_int_handler, _raise)
    ]
    for number in raising:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in raising:
            signal.signal(number, before[number])


def _end(number: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error may be closed, or full
        os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def _raise(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
