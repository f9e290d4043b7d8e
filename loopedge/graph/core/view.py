"""The cores of a graph, whatever their form: what repeats, how often, and what it reads and gives.

`view_cores` is what passes and checks ask, and `view_core` where they work on graphs of one core; nothing outside of
`loopedge.graph.core` knows how a form is laid out. A form is a subclass of `CoreView`.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import onnx_ir as ir

from loopedge.graph.core.core_view import CoreView, ExitView, iteration_number
from loopedge.graph.core.known_values import formula_of
from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.names import (
    core_in_name,
    in_last_iteration,
    is_core,
    iteration_of,
    last_state_name,
    loop_value_name,
)
from loopedge.graph.core.number_reads import rows_read, tables_read
from loopedge.graph.core.scans.scan_core import ScanCore
from loopedge.graph.core.scans.scan_view import scans_among
from loopedge.graph.metadata import MOST_LOOPS, Metadata, read_metadata
from loopedge.graph.weights import weights_read

__all__ = [
    "CoreView",
    "ExitView",
    "LoopCore",
    "NoCore",
    "ScanCore",
    "UnrolledCore",
    "iteration_number",
    "view_core",
    "view_cores",
]


class LoopCore(CoreView):
    """A core that is one Loop node; the last iteration may stand behind it."""

    form = "loop"

    def __init__(self, model: ir.Model, metadata: Metadata, loop: LoopView) -> None:
        super().__init__(model, metadata, loop.name)
        self.loop = loop
        self._graphs = {loop.body, *loop.body.subgraphs()}

    @property
    def iterations(self) -> int | None:
        """The count of the metadata, or the trip count, at which a condition may end it earlier."""
        return super().iterations or self.loop.most_iterations or self._computed_count

    @cached_property
    def _computed_count(self) -> int | None:
        """The trip count that nodes compute of constants: a Cast of one, the smaller of two."""
        formula = None if self.loop.count is None else formula_of(self.loop.count)
        if formula is None or formula.open:
            return None
        found = formula.evaluate({}, self.model.opset_imports)
        count = int(found.item()) if found is not None and found.size == 1 else 0
        return count if 1 <= count <= MOST_LOOPS else None

    @property
    def trips(self) -> int:
        """How often the body itself runs; where the iterations are not known, as if there was one."""
        return (self.iterations or 1) - (1 if self.last_nodes else 0)

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the body."""
        return list(self.loop.body.all_nodes())

    @property
    def exit(self) -> ExitView | None:
        """What an early exit carries; None where the core runs all iterations, or another tool wrote it."""
        if self.metadata.exit is None:
            return None
        *_, done, ran = self.loop.before
        return ExitView(done=done, ran=ran)

    @property
    def states(self) -> list[str]:
        """Names of the floating-point states: not of what an early exit carries, nor of what is stacked."""
        return [
            value.name or ""
            for value in self.loop.after
            if value.dtype is None or value.dtype.is_floating_point()
        ]

    @property
    def weights(self) -> dict[str, int]:
        """The weights that the body reads."""
        names = {value.name or "" for node in self.nodes for value in weights_read(node)}
        return dict.fromkeys(sorted(names - set(self.tables)), self.iterations or 1)

    @property
    def last_nodes(self) -> list[ir.Node]:
        """The nodes of a last iteration that stands behind the Loop; there is none where they are none."""
        return [
            node
            for node in self.model.graph.all_nodes()
            if in_last_iteration(node) and core_in_name(node.name or "") == self.name
        ]

    def last_state(self, state: int) -> ir.Value:
        """Return a state after the last iteration, where that stands behind the Loop.

        Raises:
            KeyError: It is not computed there.
        """
        made = {output.name: output for node in self.model.graph for output in node.outputs}
        return made[last_state_name(state)]

    def contains(self, node: ir.Node) -> bool:
        """Tell whether a node stands in the body, or in a body inside it."""
        return node.graph in self._graphs

    def number_at(self, node: ir.Node) -> ir.Value:
        """Return the body's number of the iteration, behind the Loop that of the last, else 0."""
        if self.contains(node):
            return self.loop.iteration
        if in_last_iteration(node) and self.loop.count is not None:
            return self.loop.count  # the trip count without the last iteration is its number
        return iteration_number(self.model.graph, 0)

    @property
    def _numbered(self) -> list[ir.Value]:
        return tables_read(self.loop)

    @property
    def _made(self) -> Iterable[ir.Value]:
        for graph in self._graphs:
            yield from graph.inputs
            yield from graph.initializers.values()
            yield from (output for node in graph for output in node.outputs)

    @property
    def _outer(self) -> list[ir.Node]:
        behind = [node for node in self.last_nodes if node.graph is self.model.graph]
        return [self.loop.node, *behind]


class UnrolledCore(CoreView):
    """A core that is written out once per iteration, as loopedge does it."""

    form = "unrolled"

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the first iteration."""
        return list(self._of(0))

    @property
    def states(self) -> list[str]:
        """Names of the values that the second iteration reads of the first."""
        return [
            loop_value_name(node, output.name or "")
            for node in self.model.graph
            if self._iteration(node) == 0
            for output in node.outputs
            if output.dtype is None or output.dtype.is_floating_point()
            if any(self._iteration(user) == 1 for user in output.consumers())
        ]

    @property
    def weights(self) -> dict[str, int]:
        """The weights that iterations read, each with how many do."""
        iterations: dict[str, set[int]] = {}
        for node in self.model.graph.all_nodes():
            t = self._iteration(node)
            if t is not None:
                for value in weights_read(node):
                    iterations.setdefault(value.name or "", set()).add(t)
        tables = self.tables
        return {name: len(t) for name, t in sorted(iterations.items()) if name not in tables}

    @property
    def inner_loops(self) -> list[LoopView]:
        """Loops that stand in an iteration."""
        return [*loops_among(node for node in self._outer), *super().inner_loops]

    def contains(self, node: ir.Node) -> bool:
        """Tell whether a node is named for an iteration, or stands in the body of one that is."""
        return self._iteration(node) is not None

    def number_at(self, node: ir.Node) -> ir.Value:
        """Return a constant of the main graph."""
        return iteration_number(self.model.graph, self._iteration(node) or 0)

    def _iteration(self, node: ir.Node) -> int | None:
        """Return the iteration of this core that a node belongs to; None: to none."""
        return iteration_of(node) if core_in_name(node.name or "") == self.name else None

    def _of(self, t: int) -> Iterator[ir.Node]:
        return (node for node in self.model.graph.all_nodes() if self._iteration(node) == t)

    @property
    def _steady(self) -> list[ir.Node]:
        return list(self._of(1)) or self.nodes

    @property
    def _numbered(self) -> list[ir.Value]:
        return rows_read(self.nodes, 0)

    @property
    def _made(self) -> Iterable[ir.Value]:
        for node in self.model.graph.all_nodes():
            if self._iteration(node) is not None:
                yield from node.outputs
                for attribute in node.attributes.values():
                    if attribute.type == ir.AttributeType.GRAPH:
                        yield from attribute.as_graph().inputs

    @property
    def _outer(self) -> list[ir.Node]:
        return [node for node in self.model.graph if self._iteration(node) is not None]


class NoCore(CoreView):
    """A graph in which no core is known, or several, none of which is the only one."""

    form = None

    @property
    def nodes(self) -> list[ir.Node]:
        """None."""
        return []

    @property
    def states(self) -> list[str]:
        """None."""
        return []

    @property
    def weights(self) -> dict[str, int]:
        """None."""
        return {}

    def contains(self, node: ir.Node) -> bool:
        """Tell that a node runs once per inference."""
        return False

    def number_at(self, node: ir.Node) -> ir.Value:
        """Return 0."""
        return iteration_number(self.model.graph, 0)


def view_cores(model: ir.Model) -> list[CoreView]:
    """Return the cores of a graph, in its order.

    They are the Loops of the main graph that are called ``core``, ``core2`` and so on, and iterations that are written
    out; where the graph decodes with a cache, Scans that are called so. In a graph that loopedge did not write they are all
    Loops of the main graph, whatever other nodes are called.

    Args:
        model: Any graph. Not modified.

    Raises:
        InputError: Its metadata is damaged.
    """
    metadata = read_metadata(model.metadata_props)
    loops = loops_among(model.graph)
    named = [loop for loop in loops if is_core(loop.node.name)]
    if metadata.foreign:
        named = [loop for loop in loops if iteration_of(loop.node) is None]
    looped: dict[ir.Node, CoreView] = {loop.node: LoopCore(model, metadata, loop) for loop in named}
    if metadata.generate is not None:
        scans = [scan for scan in scans_among(model.graph) if is_core(scan.node.name)]
        looped |= {scan.node: ScanCore(model, metadata, scan) for scan in scans}
    known = {core.name for core in looped.values()}
    found: list[CoreView] = []
    for node in model.graph:
        core = core_in_name(node.name or "")
        if node in looped:
            found.append(looped[node])
        elif core is None or core in known or iteration_of(node) is None:
            continue
        elif not looped or not metadata.foreign:
            found.append(UnrolledCore(model, metadata, core))
            known.add(core)
    return found or [LoopCore(model, metadata, loop) for loop in loops if len(loops) == 1]


def view_core(model: ir.Model) -> CoreView:
    """Return the only core of a graph, for what works on one alone: a `NoCore` where there is none, or several.

    Args:
        model: Any graph. Not modified.

    Raises:
        InputError: Its metadata is damaged.
    """
    cores = view_cores(model)
    return cores[0] if len(cores) == 1 else NoCore(model, read_metadata(model.metadata_props))
