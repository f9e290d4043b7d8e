"""Resident pages by kind of mapping, and the unique set, from the kernel's own words."""

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loopedge.profiler.child import process_memory as memory
from loopedge.profiler.child.process_memory import (
    parse_rollup,
    parse_smaps,
    read_memory,
)
from loopedge.profiler.processes.highest import HighestMoment

SMAPS = """\
5634e52ab000-5634e52ad000 r--p 00000000 fe:00 1180  /models/m.onnx.data
Size:                  8 kB
Rss:                   8 kB
Private_Clean:         8 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
5634e52ad000-5634e52ae000 r--p 00001000 fe:00 1180  /models/m.onnx.data
Rss:                   4 kB
Private_Clean:         4 kB
Anonymous:             0 kB
7f0000000000-7f0000010000 r-xp 00000000 fe:00 77    /lib/libonnxruntime.so.1
Rss:                  64 kB
Private_Clean:         0 kB
Anonymous:             0 kB
7f0000010000-7f0000012000 rw-p 00010000 fe:00 77    /lib/libonnxruntime.so.1
Rss:                   8 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
7f0000020000-7f0000021000 r--p 00000000 fe:00 78    /data/my table.csv (deleted)
Rss:                   4 kB
Private_Clean:         4 kB
Anonymous:             0 kB
7f0000030000-7f0000040000 rw-p 00000000 00:00 0     [heap]
Rss:                  40 kB
Private_Dirty:        40 kB
Anonymous:            40 kB
7f0000050000-7f0000060000 rw-p 00000000 00:00 0 \n\
Rss:                  16 kB
Private_Dirty:        16 kB
Anonymous:            16 kB
"""
KIB = 1024
PATIENCE_S = 60
"""Seconds after which what is waited for counts as missing: far more than it takes."""


def test_pages_are_distinguished_by_mapping() -> None:
    found = parse_smaps(SMAPS, ["/models/m.onnx", "/models/m.onnx.data"])
    assert found.model_bytes == 12 * KIB, "one file, mapped twice"
    assert found.libraries_bytes == 68 * KIB, "without its private page, data segments included"
    assert found.files_bytes == 4 * KIB, "a path with a space, of a file that is gone"
    assert found.anon_bytes == 60 * KIB


def test_without_a_model_its_pages_are_those_of_other_files() -> None:
    found = parse_smaps(SMAPS, [])
    assert (found.model_bytes, found.files_bytes) == (0, 16 * KIB)


def test_the_unique_set_is_what_is_private() -> None:
    assert parse_rollup(SMAPS) == 76 * KIB


MAPPING = """
import json, mmap, os, sys
from loopedge.profiler.child.process_memory import read_memory, read_resident

path = os.path.realpath(sys.argv[1])
before, private = read_resident([]), read_memory().uss_bytes
with open(path, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
touched = sum(mapped[page] for page in range(0, len(mapped), mmap.PAGESIZE))
found, grown = read_resident([path]), read_memory()
print(json.dumps({
    "touched": touched, "model": found.model_bytes, "files": found.files_bytes - before.files_bytes,
    "private": grown.uss_bytes - private, "shared": grown.rss_bytes - grown.uss_bytes,
}))
"""


def test_a_process_sees_the_file_that_it_maps(tmp_path: Path) -> None:
    """In a process that has no library of its own: pages of one become private when the last other process that reads it ends."""
    if not memory.SMAPS.exists():
        pytest.skip("no /proc/<pid>/smaps on this system")
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(16 << 20))  # large beside what malloc takes meanwhile
    words = [sys.executable, "-c", MAPPING, str(path)]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert found["touched"] == 0
    assert found["model"] == 16 << 20
    assert found["files"] < 1 << 20  # the interpreter may touch pages of its own meanwhile
    assert found["private"] == pytest.approx(16 << 20, abs=2 << 20)
    assert found["shared"] >= 0


def test_what_was_highest_is_kept_though_it_is_gone() -> None:
    if not memory.SMAPS.exists():
        pytest.skip("no /proc on this system")
    size = 64 << 20
    before = read_memory().rss_bytes
    highest = HighestMoment()
    highest.start(os.getpid())
    held = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        held[page] = 1
    deadline = time.monotonic() + PATIENCE_S
    while highest.rss_bytes - before <= 0.95 * size and time.monotonic() < deadline:
        time.sleep(0.005)
    held.close()
    highest.stop()
    assert highest.rss_bytes - before > 0.95 * size
    assert read_memory().rss_bytes - before < 0.5 * size
    assert 0 < highest.mapped_bytes < highest.rss_bytes


def test_a_process_that_is_gone_ends_the_watch() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    highest = HighestMoment()
    highest.start(process.pid)
    highest.stop()
    assert highest.rss_bytes == 0


def test_kernels_without_a_rollup_sum_over_the_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    known = read_memory().uss_bytes
    monkeypatch.setattr(memory, "ROLLUP", Path("/nowhere/smaps_rollup"))
    assert read_memory().uss_bytes == pytest.approx(known, rel=0.05)
