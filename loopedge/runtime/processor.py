"""Which processor this is, and which instructions it has."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FAST_INT8", "NOTED_FEATURES", "PACKING_FEATURES", "Processor", "this_processor"]

NOTED_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Features that decide how fast integer products run."""

FAST_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""Any of these multiplies eight-bit integers at full speed and without overflow."""

PACKING_FEATURES = (
    *("sse4_1", "avx", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16", "amx_tile", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
)
"""Features by which ONNX Runtime's kernels choose the layout of packed weights."""


@dataclass(frozen=True, slots=True)
class Processor:
    """Name and the features asked for that it has; none are known off Linux."""

    name: str
    features: list[str]


def this_processor(features: Sequence[str] = NOTED_FEATURES) -> Processor:
    """Return the processor of this machine, and which of ``features`` it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Processor(platform.processor() or platform.machine(), [])
    facts: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or _arm_name(facts) or platform.processor() or platform.machine()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return Processor(name, [feature for feature in features if feature in flags])


def _arm_name(facts: dict[str, str]) -> str | None:
    """Name an ARM core by its numbers: the kernel gives it no other name."""
    if "CPU part" not in facts:
        return None
    return f"ARM {facts.get('CPU implementer', '?')} part {facts['CPU part']}"
