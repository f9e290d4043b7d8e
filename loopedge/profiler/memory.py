"""Read this process's memory from the kernel; on Linux with the standard library only."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Memory", "parse_status", "read_memory", "reset_peak"]

KIB = 1024
STATUS = Path("/proc/self/status")
FIELDS = {
    "VmRSS": "rss_bytes",
    "RssAnon": "anon_bytes",
    "RssFile": "mapped_bytes",
    "VmHWM": "peak_bytes",
}
"""Lines of /proc/<pid>/status and what they are called here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one process.

    ``rss``: all resident pages; ``anon``: those that belong to no file and cannot be dropped;
    ``mapped``: pages of files, which the kernel may drop and read again; ``peak``: the highest
    ``rss`` since the last `reset_peak`.
    """

    rss_bytes: int
    anon_bytes: int
    mapped_bytes: int
    peak_bytes: int


def parse_status(text: str) -> Memory:
    """Parse /proc/<pid>/status.

    Raises:
        ValueError: A line is missing: the kernel is no Linux of the last ten years.
    """
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in FIELDS:
            found[FIELDS[key]] = int(rest.split()[0]) * KIB
    missing = sorted(set(FIELDS.values()) - set(found))
    if missing:
        raise ValueError(f"/proc/self/status lacks {', '.join(missing)}")
    return Memory(**found)


def read_memory() -> Memory:
    """Return the memory of this process; what it means off Linux is in docs/profiling.md."""
    if STATUS.exists():
        return parse_status(STATUS.read_text(encoding="ascii"))
    return _read_with_psutil()


def _read_with_psutil() -> Memory:
    import psutil

    told = psutil.Process().memory_full_info()
    private = min(told.uss, told.rss)
    return Memory(
        rss_bytes=told.rss,
        anon_bytes=private,
        mapped_bytes=told.rss - private,
        peak_bytes=max(_peak_bytes(told), told.rss),
    )


def _peak_bytes(told: Any) -> int:
    if hasattr(told, "peak_wset"):  # Windows
        return int(told.peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Let ``peak`` count from here on, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
