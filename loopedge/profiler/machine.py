"""Describe the machine that measurements come from."""

import os
import platform
from typing import Any

import onnxruntime as ort
import psutil

import loopedge
from loopedge.processor import this_processor

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and versions as plain values; no host name."""
    processor = this_processor()
    return {
        "cpu": processor.name,
        "cpu_features": processor.features,
        "cores": _cores(),
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
