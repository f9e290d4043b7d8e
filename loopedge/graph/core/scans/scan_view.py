"""A Scan node taken apart by the order in which a graph that decodes keeps its states and its cache.

| | first | then | behind these |
|---|---|---|---|
| inputs of the node | 0 | states to start from | the cache before, (iterations, ...) |
| inputs of the body | number of the iteration | states before the iteration | its row of the cache |
| outputs of the body | the next number | states after it | its row of the cache after it |
| outputs of the node | how many ran | states after all iterations | the cache after, (iterations, ...) |
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["ScanView", "scans_among"]


@dataclass(frozen=True, slots=True)
class ScanView:
    """A Scan that `loopedge.graph.decoding` wrote. Nothing is copied: edits of the graph show at once."""

    node: ir.Node

    @property
    def name(self) -> str:
        """Name of the node, or its operator where it has none."""
        return self.node.name or self.node.op_type

    @property
    def body(self) -> ir.Graph:
        """The graph that runs once per iteration."""
        return self.node.attributes["body"].as_graph()

    @property
    def iteration(self) -> ir.Value:
        """Number of the iteration in the body, int64 (), from 0."""
        return self.body.inputs[0]

    @property
    def initial(self) -> list[ir.Value | None]:
        """What the states start from."""
        return list(self.node.inputs[1 : self._states])

    @property
    def before(self) -> list[ir.Value]:
        """The states in the body, before the iteration."""
        return list(self.body.inputs[1 : self._states])

    @property
    def after(self) -> list[ir.Value]:
        """The states in the body, after the iteration."""
        return list(self.body.outputs[1 : self._states])

    @property
    def final(self) -> list[ir.Value]:
        """The states after all iterations, in the graph around the Scan."""
        return list(self.node.outputs[1 : self._states])

    @property
    def pasts(self) -> list[ir.Value | None]:
        """The cache before, in the graph around the Scan: each iteration reads its row."""
        return list(self.node.inputs[self._states :])

    @property
    def past_rows(self) -> list[ir.Value]:
        """The rows of the cache in the body."""
        return list(self.body.inputs[self._states :])

    @property
    def presents(self) -> list[ir.Value]:
        """The cache after, in the graph around the Scan; of outputs that are stacked they are the last ones."""
        return list(self.node.outputs[len(self.node.outputs) - len(self.pasts) :])

    @property
    def _states(self) -> int:
        """How many inputs are states, the number of the iteration among them."""
        return len(self.node.inputs) - self.node.attributes.get_int("num_scan_inputs", 0)


def scans_among(nodes: Iterable[ir.Node]) -> list[ScanView]:
    """Return the Scans among nodes; those inside their bodies are not among them."""
    return [ScanView(node) for node in nodes if node.op_type == "Scan" and not node.domain]
