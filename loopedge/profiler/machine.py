"""Describe the machine that measurements come from."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import psutil

import loopedge

__all__ = ["describe_machine"]

NOTED_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Processor features that decide how fast integer products run."""


@dataclass(frozen=True, slots=True)
class _Processor:
    name: str
    features: list[str]


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system and versions as plain values; no host name."""
    processor = _processor()
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


def _processor() -> _Processor:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return _Processor(platform.processor() or platform.machine(), [])
    facts: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return _Processor(name, [feature for feature in NOTED_FEATURES if feature in flags])
