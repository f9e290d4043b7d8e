"""Where a loop could be: stretches of the uses of a tied weight that repeat.

Candidates are cheap to make and cheap to refuse; `loopedge.graph.rolling.orbits` proves one or refuses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.rolling.node_facts import NodeFacts, is_constant, is_matrix

__all__ = ["Candidate", "candidates", "tied_matrices"]

FEW = 8
"""Uses in an iteration up to which each of them may be the first."""

MOST_TRIED = 48
"""Candidates of one weight."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loop of ``count`` iterations that uses a weight ``stride`` times in each.

    Args:
        weight: Read by several nodes.
        uses: Its readers, in order.
        skipped: Uses in front of the loop.
        stride: Uses in an iteration.
        count: Iterations.
    """

    weight: ir.Value
    uses: tuple[ir.Node, ...]
    skipped: int
    stride: int
    count: int

    @property
    def anchors(self) -> list[ir.Node]:
        """The first use of each iteration."""
        return list(self.uses[self.skipped :: self.stride][: self.count])

    @property
    def left(self) -> int:
        """Uses behind the loop."""
        return len(self.uses) - self.skipped - self.stride * self.count

    @property
    def remaining(self) -> int:
        """Uses that are written out when the loop is a Loop: one iteration, and what stands outside."""
        return self.skipped + self.stride + self.left


def tied_matrices(facts: NodeFacts) -> dict[ir.Value, list[ir.Node]]:
    """Return the stored matrices that several nodes of a graph read, with their readers in order, those that weigh most first.

    Readers are ordered by how many readers of such weights stand before them, not as they stand in the file; those beside each other by what they look like.
    """
    readers: dict[ir.Value, dict[ir.Node, None]] = {}
    for node in facts.nodes:
        for value in node.inputs:
            if value is None or not is_matrix(facts.unfolded.get(value, value)):
                continue
            if (is_constant(value) or value in facts.unfolded) and node.outputs[
                0
            ] not in facts.unfolded:
                readers.setdefault(value, {})[node] = None
    tied = {value: list(nodes) for value, nodes in readers.items() if len(nodes) > 1}
    depth = facts.depths(set(tied))
    for nodes in tied.values():
        nodes.sort(key=lambda node: (depth[node], facts.hashes[node], facts.place[node]))
    heaviest = sorted(tied, key=lambda value: -facts.bytes(value) * len(tied[value]))
    return {value: tied[value] for value in heaviest}


def candidates(facts: NodeFacts, weight: ir.Value, uses: list[ir.Node]) -> list[Candidate]:
    """Return what may be a loop around the uses of a weight: those that leave least written out first."""
    found = {
        Candidate(weight, tuple(uses), start, stride, count)
        for hashes in (facts.hashes, facts.near_hashes)
        for tokens in [[hashes[node] for node in uses]]
        for stride in range(1, len(uses) // 2 + 1)
        for start, count in _stretches(tokens, stride)
    }
    ranked = sorted(found, key=lambda item: (item.remaining, item.skipped, item.stride))
    return ranked[:MOST_TRIED]


def _stretches(tokens: list[int], stride: int) -> Iterator[tuple[int, int]]:
    """Yield start and iterations of maximal stretches in which a use looks like the one ``stride`` before.

    The first iterations may look different, for they start from something else; the last one may end differently.
    """
    most = len(tokens)
    equal = [tokens[k] == tokens[k + stride] for k in range(most - stride)]
    runs: list[tuple[int, int]] = []
    start = None
    for k, same in enumerate([*equal, False]):
        if same and start is None:
            start = k
        elif not same and start is not None:
            runs.append((start, k + stride))
            start = None
    if most % stride == 0 or not runs:
        yield 0, most // stride
    for begin, end in runs:
        for first in {
            *range(max(begin - 2 * stride, 0), begin + 1, 1 if stride < FEW else stride),
            begin % stride,
        }:
            count = (end - first) // stride
            for fewer in (count, count - 1):
                if fewer >= 2:
                    yield first, fewer
