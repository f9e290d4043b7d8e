"""Read this process's memory from the kernel; on Linux with the standard library only."""

import contextlib
import re
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "SMAPS",
    "Memory",
    "Resident",
    "growth_since",
    "parse_rollup",
    "parse_smaps",
    "parse_status",
    "read_memory",
    "read_resident",
    "reset_peak",
]

KIB = 1024
STATUS = Path("/proc/self/status")
SMAPS = Path("/proc/self/smaps")
ROLLUP = Path("/proc/self/smaps_rollup")
FIELDS = {
    "VmRSS": "rss_bytes",
    "RssAnon": "anon_bytes",
    "RssFile": "mapped_bytes",
    "VmHWM": "peak_bytes",
}
"""Lines of /proc/<pid>/status and what they are called here."""

PRIVATE = ("Private_Clean", "Private_Dirty")
DELETED = " (deleted)"
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (\S{4}) \S+ \S+ \S+ *(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one process.

    ``rss``: all resident pages; ``anon``: those that belong to no file and cannot be dropped;
    ``mapped``: pages of files, which the kernel may drop and read again; ``uss``: pages that no
    other process maps, anonymous or of files; ``peak``: the highest ``rss`` since the last
    `reset_peak`.
    """

    rss_bytes: int
    anon_bytes: int
    mapped_bytes: int
    uss_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Resident bytes of one process by what its mappings are.

    ``model``: pages of the model's files, counted once per mapping as RSS does; ``libraries``: of
    files that hold code; ``files``: of all others; ``anon``: of none, private copies of file pages
    included.
    """

    model_bytes: int
    libraries_bytes: int
    files_bytes: int
    anon_bytes: int


def parse_status(text: str, *, uss_bytes: int) -> Memory:
    """Parse /proc/<pid>/status, which holds all figures but one.

    Raises:
        ValueError: A line is missing: the kernel is not a Linux of the last ten years.
    """
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in FIELDS:
            found[FIELDS[key]] = int(rest.split()[0]) * KIB
    missing = sorted(set(FIELDS.values()) - set(found))
    if missing:
        raise ValueError(f"/proc/self/status lacks {', '.join(missing)}")
    return Memory(**found, uss_bytes=uss_bytes)


def parse_rollup(text: str) -> int:
    """Return the private bytes of /proc/<pid>/smaps_rollup, or of smaps: what its mappings sum to."""
    return sum(
        int(line.split()[1]) * KIB for line in text.splitlines() if line.split(":")[0] in PRIVATE
    )


def parse_smaps(text: str, model_files: Collection[str]) -> Resident:
    """Sum the resident pages of /proc/<pid>/smaps by kind of mapping.

    Args:
        text: The file.
        model_files: Absolute paths without symbolic links.
    """
    of_files: dict[str, int] = {}
    code: set[str] = set()
    anonymous = rss = 0
    path = ""
    for line in text.splitlines():
        mapping = MAPPING.match(line)
        if mapping:
            path = mapping[2].removesuffix(DELETED)
            if "x" in mapping[1]:
                code.add(path)
            continue
        key, _, rest = line.partition(":")
        if key == "Rss":
            rss = int(rest.split()[0]) * KIB
        elif key == "Anonymous":  # after Rss in every kernel; the rest of a mapping is the file's
            own = int(rest.split()[0]) * KIB
            anonymous += own
            of_files[path] = of_files.get(path, 0) + rss - own
    kinds = {"model": 0, "libraries": 0, "files": 0}
    for name, size in of_files.items():
        kinds["model" if name in model_files else "libraries" if name in code else "files"] += size
    return Resident(
        model_bytes=kinds["model"],
        libraries_bytes=kinds["libraries"],
        files_bytes=kinds["files"],
        anon_bytes=anonymous,
    )


def read_resident(model_files: Collection[str]) -> Resident:
    """Return the resident pages of this process by kind of mapping.

    Raises:
        OSError: The system has no /proc/<pid>/smaps; nothing else distinguishes mappings.
    """
    return parse_smaps(SMAPS.read_text(encoding="utf-8", errors="replace"), model_files)


def read_memory() -> Memory:
    """Return the memory of this process; what it means off Linux is in docs/profiling.md."""
    if STATUS.exists():
        # The peak is read first: reading the mappings takes memory of its own.
        status = STATUS.read_text(encoding="ascii")
        return parse_status(status, uss_bytes=_private_bytes())
    return _read_with_psutil()


def _private_bytes() -> int:
    """Return the unique set; kernels before 4.14 have no rollup and sum slowly."""
    source = ROLLUP if ROLLUP.exists() else SMAPS
    return parse_rollup(source.read_text(encoding="utf-8", errors="replace"))


def _read_with_psutil() -> Memory:
    import psutil

    counted = psutil.Process().memory_full_info()
    private = min(counted.uss, counted.rss)
    return Memory(
        rss_bytes=counted.rss,
        anon_bytes=private,
        mapped_bytes=counted.rss - private,
        uss_bytes=private,
        peak_bytes=max(_peak_bytes(counted), counted.rss),
    )


def _peak_bytes(counted: Any) -> int:
    if hasattr(counted, "peak_wset"):  # Windows
        return int(counted.peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Let ``peak`` count from here on, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def growth_since(baseline: Memory) -> dict[str, int]:
    """Return the bytes on top of an earlier reading; the peak is held against what was resident then."""
    now, before = asdict(read_memory()), asdict(baseline)
    before["peak_bytes"] = before["rss_bytes"]
    return {name: value - before[name] for name, value in now.items()}
