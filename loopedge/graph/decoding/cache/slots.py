"""What the cache of a generate file is called, and how large it is: one slot for keys and values of an attention.

| place of the attention | slot | shape |
|---|---|---|
| core, which a Scan repeats | ``core.<i>``, ``core2.<i>`` | (loops, batch, kv heads, length, head size) |
| a Scan inside the core | the same | (loops, inner loops, batch, kv heads, length, head size) |
| iteration ``t`` of a core that is written out | ``core.<t>.<i>`` | (batch, kv heads, length, head size) |
| before the core, behind it | ``prelude.<i>``, ``coda.<i>`` | the same |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.names import core_in_name, iteration_of

__all__ = ["PARTS", "PAST", "PRESENT", "Slot", "name_slots", "past_name", "present_name"]

PAST, PRESENT = "past", "present"
PARTS = ("key", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Keys and values of one attention, or of all iterations of one.

    ``loops``: iterations that keep their own, None outside of a Scan; ``inner``: those of Scans inside it, the outer one first;
    ``window``: positions that are read, None: all; ``softcap``: of the scores, None: none.
    """

    name: str
    loops: int | None
    inner: tuple[int, ...] = ()
    kv_heads: int
    head_size: int
    window: int | None
    softcap: float | None = None


def past_name(slot: str, part: str) -> str:
    """Return the input that holds keys or values: ``past.core.0.key``."""
    return f"{PAST}.{slot}.{part}"


def present_name(slot: str, part: str) -> str:
    """Return the output that holds them: ``present.core.0.key``."""
    return f"{PRESENT}.{slot}.{part}"


def name_slots(nodes: Sequence[ir.Node], cores: Sequence[str | None]) -> list[str]:
    """Return the slot of each attention.

    Args:
        nodes: Attentions, in the order of the graph.
        cores: What the Loops are called that hold them; None: the main graph.
    """
    count: dict[str, int] = {}
    found = []
    behind = False
    for node, core in zip(nodes, cores, strict=True):
        written_out = iteration_of(node)
        if core is not None:
            place, behind = core, True
        elif written_out is not None:
            place, behind = f"{core_in_name(node.name or '')}.{written_out}", True
        else:
            place = "coda" if behind else "prelude"
        found.append(f"{place}.{count.get(place, 0)}")
        count[place] = count.get(place, 0) + 1
    return found
