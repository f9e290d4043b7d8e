"""What is asked of a core, whatever its form."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.names import CORE_NAME, is_core
from loopedge.graph.editing import add_initializer
from loopedge.graph.metadata import Metadata
from loopedge.graph.weights import TABLE_PREFIX, Linear, linears, stored_weight

__all__ = ["CoreForm", "CoreView", "ExitView", "iteration_number"]

CoreForm = Literal["loop", "unrolled", "scan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitView:
    """What an early exit carries from iteration to iteration, in the body.

    ``done``: which batch rows are done, bool (batch,); ``ran``: how many iterations each ran, int64 (batch,).
    """

    done: ir.Value
    ran: ir.Value


class CoreView(ABC):
    """A core of a graph.

    Unchecked: after a pass that replaced the core's Loop, or renamed its nodes, ask `view_cores` again.

    Args:
        model: The graph. A view changes nothing, but `number_at` may add a constant.
        metadata: What the graph says of itself.
        name: Of the core: ``core``, ``core2`` and so on, in a graph of another tool that of its Loop.
    """

    form: ClassVar[CoreForm | None]

    def __init__(self, model: ir.Model, metadata: Metadata, name: str = CORE_NAME) -> None:
        self.model, self.metadata, self.name = model, metadata, name

    @property
    def iterations(self) -> int | None:
        """How often the core runs in one inference, unless an input says else; None: not known."""
        cores = self.metadata.cores
        if cores is not None:
            return cores.get(self.name)
        further = is_core(self.name) and self.name != CORE_NAME
        return None if further else self.metadata.loops

    @property
    @abstractmethod
    def nodes(self) -> list[ir.Node]:
        """The nodes of one iteration, the first where they are written out, with those of inner bodies."""

    @property
    @abstractmethod
    def states(self) -> list[str]:
        """Names of the floating-point states that an iteration hands on, as in the loop form.

        An unrolled graph of one iteration names none, and names them in the order of its nodes.
        """

    @property
    @abstractmethod
    def weights(self) -> dict[str, int]:
        """The weights that the core reads, by name, each with the number of iterations that read it."""

    @abstractmethod
    def contains(self, node: ir.Node) -> bool:
        """Tell whether a node runs once per iteration.

        What reads the context alone has left the Loop: it is called ``core/...`` and runs once.
        """

    @abstractmethod
    def number_at(self, node: ir.Node) -> ir.Value:
        """Return the number of the iteration that a node belongs to, int64 (); 0 outside the core."""

    @property
    def linears(self) -> list[Linear]:
        """The linears of one iteration."""
        inside = set(self.nodes)
        return [item for item in linears(self.model) if item.node in inside]

    @property
    def context(self) -> list[ir.Value]:
        """Values of the graph around that every iteration reads and no iteration makes, without constants.

        Of an unrolled graph of one iteration the states that it starts from are among them.
        """
        made = set(self._made)
        read = (value for node in self._steady for value in node.inputs if value is not None)
        return [
            value
            for value in dict.fromkeys(read)
            if value not in made and value.const_value is None and stored_weight(value) is None
        ]

    @property
    def tables(self) -> dict[str, ir.Value]:
        """The timestep tables that the core reads, (rows, ...), by name."""
        read = [value for node in self.nodes for value in node.inputs if value is not None]
        named = [value for value in read if (value.name or "").startswith(TABLE_PREFIX)]
        return {value.name or "": value for value in [*named, *self._numbered]}

    @property
    def outputs(self) -> list[ir.Value]:
        """What the graph behind the core reads of it."""
        own = dict.fromkeys(self._outer)
        return [
            value
            for node in own
            for value in node.outputs
            if value.is_graph_output() or any(user not in own for user in value.consumers())
        ]

    @property
    def inner_loops(self) -> list[LoopView]:
        """Loops that stand in the body of another, or in an iteration that is written out."""
        return [loop for graph in self.model.graph.subgraphs() for loop in loops_among(graph)]

    @property
    def _steady(self) -> list[ir.Node]:
        """Nodes of an iteration that reads the states of another."""
        return self.nodes

    @property
    def _numbered(self) -> list[ir.Value]:
        """Stored values of which iteration t reads row t, whatever they are called."""
        return []

    @property
    def _made(self) -> Iterable[ir.Value]:
        """Values that iterations make, or that are handed to them."""
        return ()

    @property
    def _outer(self) -> list[ir.Node]:
        """The nodes of the main graph that make up the core."""
        return []


def iteration_number(graph: ir.Graph, t: int) -> ir.Value:
    """Return the initializer that holds the number of an iteration, int64 ()."""
    return add_initializer(graph, f"loopedge.iteration.{t}", np.array(t, np.int64))
