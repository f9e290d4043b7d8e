"""Read from ONNX Runtime's trace what its arena holds: packed weights, and activations at their peak."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopedge.profiler.dissection.trace import KERNEL

__all__ = ["ArenaUse", "arena_use"]

IN_USE = "mem_bytes_in_use"
DELTA = "mem_in_use_delta"
PEAK = "mem_in_use_peak"
HELD = "mem_arena_held"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaUse:
    """Bytes of the arena: ``loaded`` before the first node of the first run, ``activations`` beyond that.

    ``held``: what it has taken from malloc in the end, beyond ``loaded``, and never gives back; a large
    buffer of a kernel may be among the activations and not be held. ``peak_node`` is the node at which
    the activations are largest.
    """

    loaded_bytes: int = 0
    activations_bytes: int = 0
    held_bytes: int = 0
    peak_node: str | None = None


def arena_use(events: Iterable[Mapping[str, Any]]) -> ArenaUse | None:
    """Return what the nodes of a trace took from the arena.

    ONNX Runtime counts the highest use since the session was made. Where packing took more than any
    run did, that says nothing of the runs: then the most in use after a node counts, which leaves
    out what a kernel allocates and frees again.

    Args:
        events: Of the trace, warm-up included: the first run is where the arena grows.

    Returns:
        None where the trace holds nothing about memory: the session has no arena.
    """
    nodes = [event for event in events if IN_USE in event.get("args", {})]
    if not nodes:
        return None
    # A Loop's event holds the highest use too, and ends after the node that made it.
    nodes.sort(key=lambda event: (int(event["ts"]) + int(event["dur"]), int(event["dur"])))
    first = min(nodes, key=lambda event: int(event["ts"]) + int(event["dur"]))["args"]
    loaded = int(first[IN_USE]) - int(first[DELTA])
    figure = PEAK
    if int(nodes[-1]["args"][PEAK]) == int(first[PEAK]) > int(first[IN_USE]):
        figure = IN_USE
    highest = max(nodes, key=lambda event: int(event["args"][figure]))
    return ArenaUse(
        loaded_bytes=max(loaded, 0),
        activations_bytes=max(int(highest["args"][figure]) - loaded, 0),
        held_bytes=max(max(int(event["args"][HELD]) for event in nodes) - loaded, 0),
        peak_node=str(highest["name"]).removesuffix(KERNEL),
    )
