"""What the cache of a generate file is called, and how large it is: one slot for keys and values of an attention.

| place of the attention | slot | shape |
|---|---|---|
| core, which a Scan repeats | ``core.<i>``, ``core2.<i>`` | (loops, batch, kv heads, length, head size) |
| iteration ``t`` of a core that is written out | ``core.<t>.<i>`` | (batch, kv heads, length, head size) |
| before the core, behind it | ``prelude.<i>``, ``coda.<i>`` | the same |
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.names import core_in_name, iteration_of

__all__ = ["PAST", "PRESENT", "Slot", "name_slots", "past_name", "present_name"]

PAST, PRESENT = "past", "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Keys and values of one attention, or of all iterations of one.

    ``loops``: iterations that keep their own, None outside of a Scan; ``window``: positions that are read, None: all.
    """

    name: str
    loops: int | None
    kv_heads: int
    head_size: int
    window: int | None


def past_name(slot: str, part: str) -> str:
    """Return the input that holds keys or values: ``past.core.0.key``."""
    return f"{PAST}.{slot}.{part}"


def present_name(slot: str, part: str) -> str:
    """Return the output that holds them: ``present.core.0.key``."""
    return f"{PRESENT}.{slot}.{part}"


def name_slots(nodes: Iterable[ir.Node], loops: dict[ir.Graph, str]) -> dict[ir.Node, str]:
    """Return the slot of each attention.

    Args:
        nodes: Attentions, in the order of the graph.
        loops: The bodies of Loops, and what these are called.
    """
    count: dict[str, int] = {}
    found: dict[ir.Node, str] = {}
    behind = False
    for node in nodes:
        core = None if node.graph is None else loops.get(node.graph)
        written_out = iteration_of(node)
        if core is not None:
            place, behind = core, True
        elif written_out is not None:
            place, behind = f"{core_in_name(node.name or '')}.{written_out}", True
        else:
            place = "coda" if behind else "prelude"
        found[node] = f"{place}.{count.get(place, 0)}"
        count[place] = count.get(place, 0) + 1
    return found
