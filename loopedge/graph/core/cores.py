"""All cores of a graph as one: which of them a node belongs to, and in which iteration it runs."""

from collections.abc import Iterator

import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.view import (
    CoreView,
    LoopCore,
    NoCore,
    ScanCore,
    iteration_number,
    view_cores,
)
from loopedge.graph.metadata import read_metadata

__all__ = ["Cores"]


class Cores:
    """The cores of a graph, in its order.

    Unchecked: as `CoreView`.

    Args:
        model: The graph. Not modified, but `number_at` may add a constant.

    Attributes:
        metadata: What the graph says of itself.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model, self._all = model, view_cores(model)
        self.metadata = read_metadata(model.metadata_props)
        self._loops = [core for core in self._all if isinstance(core, LoopCore)]

    def __iter__(self) -> Iterator[CoreView]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def loops(self) -> list[LoopCore]:
        """Those that are Loops."""
        return self._loops

    @property
    def scans(self) -> list[ScanCore]:
        """Those that are Scans."""
        return [core for core in self._all if isinstance(core, ScanCore)]

    def of(self, node: ir.Node) -> CoreView | None:
        """Return the core that runs a node once per iteration; None: none does."""
        return next((core for core in self._all if core.contains(node)), None)

    def contains(self, node: ir.Node) -> bool:
        """Tell whether a node runs once per iteration of a core."""
        return self.of(node) is not None

    def number_at(self, node: ir.Node) -> ir.Value:
        """Return the number of the iteration that a node belongs to, int64 (); 0 outside the cores."""
        for core in self._all:
            if core.contains(node) or (isinstance(core, LoopCore) and node in core.last_nodes):
                return core.number_at(node)
        return iteration_number(self.model.graph, 0)

    @property
    def iterations(self) -> dict[str, int | None]:
        """How often each runs, by its name; None: not known."""
        return {core.name: core.iterations for core in self._all}

    @property
    def count(self) -> int | None:
        """How often the only one runs, or all of them; None: not known, or not equally often."""
        counts = set(self.iterations.values())
        return next(iter(counts)) if len(counts) == 1 else None

    @property
    def count_text(self) -> str:
        """How often they run where no input says it, in words: ``runs 5 loops``."""
        if self.count is not None:
            return f"runs {self.count} loops"
        if len(self) < 2:
            return "runs a number of loops that no input chooses"
        counts = (
            f"{'a number of' if count is None else count} loops in {name}"
            for name, count in self.iterations.items()
        )
        return f"runs {', '.join(counts)}"

    @property
    def weights(self) -> dict[str, int]:
        """The weights that cores read, by name, each with the number of iterations that read it, of all together."""
        found: dict[str, int] = {}
        for core in self._all:
            for name, iterations in core.weights.items():
                found[name] = found.get(name, 0) + iterations
        return dict(sorted(found.items()))

    @property
    def inner_loops(self) -> list[LoopView]:
        """Loops that stand in the body of another, or in an iteration that is written out."""
        found = [loop for core in self._all for loop in core.inner_loops]
        return list(dict.fromkeys(found or NoCore(self.model, self.metadata).inner_loops))
