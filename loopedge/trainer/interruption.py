"""Ctrl-C, SIGTERM and SIGHUP end a run after the step that is under way, so that it can be resumed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopRequest", "stop_on_signal"]

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class StopRequest:
    """Whether the run is asked to end."""

    def __init__(self) -> None:
        self.asked = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note the signals instead of dying of them; a second one ends the process at once.

    One that is ignored stays so: ``nohup`` ignores SIGHUP, a shell Ctrl-C for what runs behind. Outside
    the main thread, where Python cannot handle signals, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    taken = [one for one in ENDING if signal.getsignal(one) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in taken}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
