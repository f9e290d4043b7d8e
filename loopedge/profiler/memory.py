"""Read this process's memory from the kernel (Linux); the standard library only."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "parse_status", "read_memory", "reset_peak"]

KIB = 1024
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
    """Return the memory of this process.

    Raises:
        OSError: There is no /proc: memory is measured on Linux only.
    """
    return parse_status(Path("/proc/self/status").read_text(encoding="ascii"))


def reset_peak() -> None:
    """Let ``peak`` count from here on, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
