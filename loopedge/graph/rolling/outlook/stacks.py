"""Blocks of equal structure, one after the other: which of their weights they share, and which are their own."""

from dataclasses import dataclass

from loopedge.graph.rolling.outlook.ordered_reads import OrderedReads, Weight
from loopedge.graph.rolling.outlook.tie_order import longest_repeat

__all__ = ["Stack", "stack_of_blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Blocks of equal structure.

    Attributes:
        blocks: How many.
        shared: Weights that all blocks read.
        own: Weights of the first block that the others have weights of their own for.
        partly_shared: Weights of the first block that some blocks share, not all.
        own_bytes: Of the weights of all blocks that are not shared by all.
        shared_bytes: Of the shared ones.
    """

    blocks: int
    shared: list[str]
    own: list[str]
    partly_shared: list[str]
    own_bytes: int
    shared_bytes: int


def stack_of_blocks(ordered: OrderedReads) -> Stack | None:
    """Find the longest stretch of products that repeats itself, whatever weights they read.

    Products are alike by their operator and the shape of their weight. None where nothing is repeated.
    """
    found = longest_repeat([read.kind for read in ordered.reads])
    if found is None:
        return None
    start, period, blocks = found
    shared: list[Weight] = []
    own: list[Weight] = []
    partly: list[Weight] = []
    several: dict[Weight, None] = {}
    for slot in range(start, start + period):
        read = [ordered.reads[slot + block * period].weight for block in range(blocks)]
        different = dict.fromkeys(read)
        if len(different) == 1:
            shared.append(read[0])
        else:
            (own if len(different) == blocks else partly).append(read[0])
            several |= different
    return Stack(
        blocks=blocks,
        shared=[weight.name for weight in shared],
        own=[weight.name for weight in own],
        partly_shared=[weight.name for weight in partly],
        own_bytes=sum(weight.bytes for weight in several),
        shared_bytes=sum(weight.bytes for weight in dict.fromkeys(shared)),
    )
