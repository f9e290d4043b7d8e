"""Watch a process from outside while it loads, and keep what it held when it held most."""

import contextlib
import os
import threading
import time
from pathlib import Path

__all__ = ["HighestMoment"]

PAUSE_SECONDS = 5e-5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class HighestMoment:
    """Read /proc/<pid>/statm again and again; the kernel reports the peak itself, not its parts.

    ``rss_bytes`` and ``mapped_bytes`` (pages of files among them) are those of the highest reading.
    """

    def __init__(self) -> None:
        self.rss_bytes = 0
        self.mapped_bytes = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        """Watch a process from now on."""
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, pid: int) -> None:
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/statm").open("rb", 0) as file:
            while not self._ended.is_set():
                time.sleep(PAUSE_SECONDS)
                pages = os.pread(file.fileno(), 128, 0).split()
                if len(pages) < 3:
                    return
                resident = int(pages[1]) * PAGE_BYTES
                if resident > self.rss_bytes:
                    self.rss_bytes, self.mapped_bytes = resident, int(pages[2]) * PAGE_BYTES
