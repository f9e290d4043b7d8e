"""A core that is one Scan node."""

from collections.abc import Iterable

import onnx_ir as ir

from loopedge.graph.core.core_view import CoreView, iteration_number
from loopedge.graph.core.number_reads import tables_read
from loopedge.graph.core.scans.scan_view import ScanView
from loopedge.graph.metadata import Metadata
from loopedge.graph.weights import weights_read

__all__ = ["ScanCore"]


class ScanCore(CoreView):
    """A core that is one Scan node: it runs as often as its cache has rows."""

    form = "scan"

    def __init__(self, model: ir.Model, metadata: Metadata, scan: ScanView) -> None:
        super().__init__(model, metadata, scan.name)
        self.scan = scan
        self._graphs = {scan.body, *scan.body.subgraphs()}

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the body."""
        return list(self.scan.body.all_nodes())

    @property
    def states(self) -> list[str]:
        """Names of the floating-point states: neither the number of the iteration nor the cache."""
        return [
            value.name or ""
            for value in self.scan.after
            if value.dtype is None or value.dtype.is_floating_point()
        ]

    @property
    def weights(self) -> dict[str, int]:
        """The weights that the body reads."""
        names = {value.name or "" for node in self.nodes for value in weights_read(node)}
        return dict.fromkeys(sorted(names - set(self.tables)), self.iterations or 1)

    def contains(self, node: ir.Node) -> bool:
        """Tell whether a node stands in the body, or in a body inside it."""
        return node.graph in self._graphs

    def number_at(self, node: ir.Node) -> ir.Value:
        """Return the body's number of the iteration; 0 outside of it."""
        return self.scan.iteration if self.contains(node) else iteration_number(self.model.graph, 0)

    @property
    def _numbered(self) -> list[ir.Value]:
        return tables_read(self.scan)

    @property
    def _made(self) -> Iterable[ir.Value]:
        for graph in self._graphs:
            yield from graph.inputs
            yield from graph.initializers.values()
            yield from (output for node in graph for output in node.outputs)

    @property
    def _outer(self) -> list[ir.Node]:
        return [self.scan.node]
