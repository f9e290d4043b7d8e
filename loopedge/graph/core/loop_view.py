"""A Loop node taken apart by the order in which ONNX keeps its inputs, its body and its outputs.

| | first | second | then | behind these |
|---|---|---|---|---|
| inputs of the node | trip count | condition | states to start from | |
| inputs of the body | number of the iteration | condition | states before the iteration | |
| outputs of the body | condition | | states after the iteration | one entry of each stack |
| outputs of the node | | | states after all iterations | stacks, an entry per iteration |
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.metadata import MOST_LOOPS
from loopedge.graph.naming import mark_made_up

__all__ = ["LoopView", "loops_among"]


@dataclass(frozen=True, slots=True)
class LoopView:
    """A Loop of anybody's graph, the core or not. Nothing is copied: edits of the graph show at once."""

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
    def count(self) -> ir.Value | None:
        """The most iterations, int64 (); None: until the condition ends it."""
        return self.node.inputs[0] if self.node.inputs else None

    @property
    def start(self) -> ir.Value | None:
        """Whether it runs at all, bool (); None: it does."""
        return self.node.inputs[1] if len(self.node.inputs) > 1 else None

    @property
    def initial(self) -> list[ir.Value | None]:
        """What the states start from."""
        return list(self.node.inputs[2:])

    @property
    def iteration(self) -> ir.Value:
        """Number of the iteration in the body, int64 (), from 0."""
        return self.body.inputs[0]

    @property
    def condition(self) -> ir.Value:
        """In the body: what the iteration before answered, bool ()."""
        return self.body.inputs[1]

    @property
    def before(self) -> list[ir.Value]:
        """The states in the body, before the iteration."""
        return list(self.body.inputs[2:])

    @property
    def next_condition(self) -> ir.Value:
        """In the body: whether another iteration shall follow, bool ()."""
        return self.body.outputs[0]

    @property
    def after(self) -> list[ir.Value]:
        """The states in the body, after the iteration."""
        return list(self.body.outputs[1 : 1 + len(self.initial)])

    @property
    def final(self) -> list[ir.Value]:
        """The states after all iterations, in the graph around the Loop."""
        return list(self.node.outputs[: len(self.initial)])

    @property
    def stacked(self) -> list[ir.Value]:
        """Outputs that hold a value of every iteration, (iterations, ...)."""
        return list(self.node.outputs[len(self.initial) :])

    @property
    def trip_count(self) -> int | None:
        """The constant trip count; None where it has none, or no single number."""
        tensor = None if self.count is None else ir.convenience.get_const_tensor(self.count)
        if tensor is None or tensor.size != 1 or not tensor.dtype.is_integer():
            return None
        return int(tensor.numpy().item())

    @property
    def most_iterations(self) -> int | None:
        """How often it runs at most, as far as the graph says; a count past `MOST_LOOPS` leaves that to the condition."""
        count = self.trip_count
        return count if count is not None and 0 < count <= MOST_LOOPS else None

    @property
    def runs_on(self) -> bool:
        """Whether the condition never ends the Loop before the trip count."""
        condition: ir.Value | None = self.next_condition
        while condition is not None and condition is not self.condition:
            producer = condition.producer()
            if producer is None or producer.op_type != "Identity":
                tensor = ir.convenience.get_const_tensor(condition)
                return tensor is not None and bool(tensor.numpy().all())
            condition = producer.inputs[0]
        return condition is not None

    def replace_count(self, value: ir.Value) -> None:
        """Let the Loop run as often as another value says, in place."""
        self.node.replace_input_with(0, value)

    def replace_next_condition(self, value: ir.Value) -> None:
        """Let another value of the body say whether an iteration follows, in place."""
        self.body.outputs[0] = value

    def widen(self, count: int) -> list[ir.Value]:
        """Give the node further outputs for what was appended to those of the body, in place.

        Another node takes the place of this one, which stands in no graph afterwards.

        Returns:
            The new outputs: stacks, without name, type or shape.
        """
        old, graph = self.node, self.node.graph
        if graph is None:
            raise ValueError(f"Loop {self.name} stands in no graph")
        known = len(old.outputs)
        wider = ir.Node(
            "",
            "Loop",
            old.inputs,
            old.attributes.values(),
            num_outputs=known + count,
            name=old.name,
        )
        graph.insert_before(old, wider)
        for value, new in zip(old.outputs, wider.outputs[:known], strict=True):
            name, new.type, new.shape = value.name, value.type, value.shape
            ir.convenience.replace_all_uses_with(value, new, replace_graph_outputs=True)
            new.name = name
        graph.remove(old)
        return list(wider.outputs[known:])

    def carry(self, value: ir.Value) -> "LoopView":
        """Hand a value of the graph around to the body as a state that no iteration changes, in place.

        What the body reads of the graph around is captured otherwise. Another node takes the place of this one, which
        stands in no graph afterwards.
        """
        old, body, graph = self.node, self.body, self.node.graph
        if graph is None:
            raise ValueError(f"Loop {self.name} stands in no graph")
        states = len(self.initial)
        inside = {body, *body.subgraphs()}
        name = f"{self.name}/{value.name}"
        before = ir.Value(name=name, type=value.type, shape=_copied(value.shape))
        for node, place in list(value.uses()):
            if node.graph in inside:
                node.replace_input_with(place, before)
        kept = ir.node("Identity", [before], name=f"{name}.kept")
        kept.outputs[0].name = f"{name}.kept"
        kept.outputs[0].type, kept.outputs[0].shape = value.type, _copied(value.shape)
        body.inputs.append(before)
        body.append(kept)
        body.outputs.insert(1 + states, kept.outputs[0])
        wider = ir.Node(
            "",
            "Loop",
            [*old.inputs, value],
            old.attributes.values(),
            num_outputs=len(old.outputs) + 1,
            name=old.name,
        )
        graph.insert_before(old, wider)
        after = [*wider.outputs[:states], *wider.outputs[states + 1 :]]
        for output, new in zip(old.outputs, after, strict=True):
            known, new.type, new.shape = output.name, output.type, _copied(output.shape)
            ir.convenience.replace_all_uses_with(output, new, replace_graph_outputs=True)
            new.name = known
        wider.outputs[states].name = f"{name}.unread"
        wider.outputs[states].type = value.type
        for named in (before, kept, kept.outputs[0], wider.outputs[states]):
            mark_made_up(named)
        graph.remove(old)
        return LoopView(wider)


def _copied(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape(list(shape))


def loops_among(nodes: Iterable[ir.Node]) -> list[LoopView]:
    """Return the Loops among nodes; those inside their bodies are not among them."""
    return [LoopView(node) for node in nodes if node.op_type == "Loop" and not node.domain]
