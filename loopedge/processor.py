"""Which processor this is, and which instructions it has for integer products."""

import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FAST_INT8", "NOTED_FEATURES", "Processor", "this_processor"]

NOTED_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Features that decide how fast integer products run."""

FAST_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Any of these multiplies eight-bit integers at full speed and without overflow."""


@dataclass(frozen=True, slots=True)
class Processor:
    """Name and those of `NOTED_FEATURES` that it has; none are known off Linux."""

    name: str
    features: list[str]


def this_processor() -> Processor:
    """Return the processor of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Processor(platform.processor() or platform.machine(), [])
    facts: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return Processor(name, [feature for feature in NOTED_FEATURES if feature in flags])
