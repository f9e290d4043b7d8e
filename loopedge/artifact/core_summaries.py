"""What `inspect` says of each core of a graph: how often it runs, what it reads, what may end it."""

from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.core.core_view import CoreForm
from loopedge.graph.core.cores import Cores
from loopedge.graph.core.view import CoreView, LoopCore
from loopedge.graph.inputs import chooses_loops
from loopedge.graph.weights import all_initializers, stored_bytes

__all__ = ["CoreSummary", "exit_of", "summarise_cores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSummary:
    """A core: a Loop of the main graph, or iterations that are written out.

    ``iterations`` is None where only the run tells; ``dynamic_loops`` says whether an input of the graph does, ``exit`` what
    may end it earlier. ``tables`` are those of which iteration t reads row t, ``weights`` are stored once and read in
    every iteration, ``weight_bytes`` are theirs; ``states`` are the floating-point values that it hands on.
    """

    name: str
    form: CoreForm | None
    iterations: int | None
    dynamic_loops: bool
    exit: str | None
    states: int
    tables: list[str]
    weights: int
    weight_bytes: int


def summarise_cores(model: ir.Model) -> list[CoreSummary]:
    """Return what is to be known of each core of a graph, in its order."""
    stored = {value.name: value for value in all_initializers(model)}
    found = []
    for core in Cores(model):
        weights = [stored[name] for name in core.weights if name in stored]
        found.append(
            CoreSummary(
                name=core.name,
                form=core.form,
                iterations=core.iterations,
                dynamic_loops=_is_chosen(core),
                exit=exit_of(core),
                states=len(core.states),
                tables=list(core.tables),
                weights=len(weights),
                weight_bytes=sum(map(stored_bytes, weights)),
            )
        )
    return found


def exit_of(core: CoreView) -> str | None:
    """Return what may end a core before its last iteration; None: nothing."""
    if core.metadata.foreign and isinstance(core, LoopCore) and not core.loop.runs_on:
        return "its condition"
    return core.metadata.exit


def _is_chosen(core: CoreView) -> bool:
    """Tell whether an input of the graph says how often a core runs."""
    if not core.metadata.foreign:
        return core.metadata.dynamic_loops
    count = core.loop.count if isinstance(core, LoopCore) else None
    inputs = {value for value in core.model.graph.inputs if chooses_loops(value)}
    waiting = [] if count is None else [count]
    for value in waiting:
        maker = value.producer()
        if value in inputs:
            return True
        waiting += [] if maker is None else [each for each in maker.inputs if each is not None]
    return False
