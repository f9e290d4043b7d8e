"""Describe the machine that measurements come from."""

import os
import platform
import sys
from typing import Any

import onnxruntime as ort
import psutil

import loopedge
from loopedge.errors import InputError
from loopedge.options import option
from loopedge.profiler.caches import cache_levels
from loopedge.profiler.child.process_memory import STATUS
from loopedge.runtime.processor import this_processor

__all__ = ["check_machine", "describe_machine", "free_bytes"]


def check_machine(threads: int) -> None:
    """Refuse a machine that cannot be measured as it is asked for.

    Args:
        threads: The most that a process is to run with, each on a core of its own.

    Raises:
        InputError: Linux without /proc, or fewer cores.
    """
    if sys.platform.startswith("linux") and not STATUS.exists():
        raise InputError(
            "memory is read from /proc, which is not mounted here", hint="mount -t proc proc /proc"
        )
    cores = _cores()
    if threads > cores:
        raise InputError(
            f"threads is {threads}, the cores to run on are {cores}", hint=option("threads", cores)
        )


def free_bytes() -> int:
    """Return the memory that new processes can take without swapping."""
    return int(psutil.virtual_memory().available)


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and versions as plain values; no host name."""
    processor = this_processor()
    return {
        "cpu": processor.name,
        "cpu_features": processor.features,
        "cores": _cores(),
        "cache_bytes": cache_levels(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "loopedge": loopedge.__version__,
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
