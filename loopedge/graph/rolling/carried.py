"""What a scheduled loop carries, reads and gives: its states, and who outside reads which iteration."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from loopedge.graph.rolling.node_facts import shown
from loopedge.graph.rolling.orbits import Misaligned, Orbit, Slot
from loopedge.graph.rolling.retiming import MOST_STATES, Schedule

MOST_KEPT = 6
"""Nodes of the first iteration that are computed outside as well."""

__all__ = ["Given", "State", "carried_states", "check_order", "check_stacks", "given_values"]


@dataclass(slots=True, eq=False)
class State:
    """An output of an orbit that later iterations read.

    ``starts`` holds what stands for it before the first iteration, by how many iterations before: 1, 2, ...
    An order of two or more (a recurrence of second order) takes as many carried values.
    """

    source: Orbit
    output: int
    starts: dict[int, ir.Value] = field(default_factory=dict)

    @property
    def order(self) -> int:
        """How many iterations back it is read at most."""
        return max(self.starts)

    def takes(self, starts: dict[int, ir.Value]) -> bool:
        """Tell whether another reader starts from the same."""
        return all(self.starts.get(age, value) is value for age, value in starts.items())


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """An output of an orbit that the graph around reads, by iteration from 1."""

    orbit: Orbit
    output: int
    values: dict[int, ir.Value]


def carried_states(schedule: Schedule) -> dict[tuple[Orbit, Slot], State]:
    """Return the state that each edge across iterations reads.

    Raises:
        Misaligned: There are too many, or one is older than the iterations show.
    """
    made: list[State] = []
    read: dict[tuple[Orbit, Slot], State] = {}
    for orbit, slot in schedule.edges():
        distance = schedule.distance(orbit, slot)
        assert slot.source is not None
        if distance < 0:
            raise Misaligned("an iteration reads what a later one computes")
        if distance == 0:
            continue
        if distance > schedule.iterations:
            raise Misaligned(
                f"a state is {distance} iterations old, and there are {schedule.iterations}"
            )
        starts: dict[int, ir.Value] = {}
        for t in range(1, distance + 1):
            value = slot.values.get(t + schedule.moves[orbit])
            if value is None:
                raise Misaligned("what a state starts from is not computed")
            starts[distance - t + 1] = value
        state = next(
            (
                known
                for known in made
                if (known.source, known.output) == (slot.source, slot.output)
                and known.takes(starts)
            ),
            None,
        )
        if state is None:
            state = State(slot.source, slot.output)
            made.append(state)
        state.starts.update(starts)
        read[orbit, slot] = state
    if not made:
        raise Misaligned(
            "the uses of a weight do not follow from each other: they are side by side"
        )
    carried = sum(state.order for state in made)
    if carried > MOST_STATES:
        raise Misaligned(
            f"{carried} values go from one iteration to the next, at most {MOST_STATES} do in a Loop"
        )
    return read


def check_order(
    schedule: Schedule, states: dict[tuple[Orbit, Slot], State], tied: set[ir.Value]
) -> None:
    """Refuse a Loop that would need what it computes itself, directly or by way of nodes outside.

    What a state starts from may be a node of the first iteration: equal nodes are one, and two states may start from
    the same. A few such nodes are computed twice.

    Raises:
        Misaligned: It does.
    """
    inside = schedule.inside()
    facts = schedule.alignment.facts
    seen: set[ir.Node] = set()
    waiting = [facts.producer(value) for value in _read_before(schedule, states)]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in inside:
            _keep(schedule, node, inside[node][1], tied)
        waiting += [facts.producer(value) for value in facts.reads[node]]


def _keep(schedule: Schedule, node: ir.Node, t: int, tied: set[ir.Value]) -> None:
    """Let a node of the first iteration stay in the graph around as well, where a state starts from it.

    Raises:
        Misaligned: It is of another iteration, there are many, or it is a product with a tied weight.
    """
    if t > 1 or len(schedule.kept) >= MOST_KEPT or tied.intersection(node.inputs):
        raise Misaligned(
            f"a cross link: another iteration reads what {shown(node)} computes in iteration {t}"
        )
    schedule.kept.add(node)


def _read_before(schedule: Schedule, states: dict[tuple[Orbit, Slot], State]) -> Iterator[ir.Value]:
    """Yield what must be there before the Loop starts."""
    for state in states.values():
        yield from state.starts.values()
    for orbit in schedule.alignment.orbits:
        for slot in orbit.slots:
            if slot.kind in {"outer", "stack"}:
                yield from schedule.values(orbit, slot)


def check_stacks(schedule: Schedule, given: Sequence[Given]) -> None:
    """Refuse to stack values of several shapes, before the Loop or behind it.

    Raises:
        Misaligned: There are some; sizes that are not known are left to whoever runs the graph.
    """
    for each in given:
        if set(each.values) != {schedule.iterations}:
            _check_sizes(schedule.made(each.orbit, each.output))
    for orbit in schedule.alignment.orbits:
        for slot in orbit.slots:
            if slot.kind == "stack":
                _check_sizes(schedule.values(orbit, slot))


def _check_sizes(values: Sequence[ir.Value]) -> None:
    shapes = {tuple(value.shape) for value in values if value.shape is not None}
    known = [shape for shape in shapes if all(isinstance(dim, int) for dim in shape)]
    ranks = {len(shape) for shape in shapes}
    axes = zip(*shapes, strict=True) if len(ranks) == 1 else ()
    sizes = [{dim for dim in axis if isinstance(dim, int)} for axis in axes]
    if len(ranks) > 1 or len(known) > 1 or any(len(size) > 1 for size in sizes):
        raise Misaligned(f"the sizes of {values[0].name} change from iteration to iteration")


def given_values(schedule: Schedule) -> list[Given]:
    """Return what the graph around reads of the nodes that the Loop replaces."""
    inside = schedule.inside()
    found: dict[tuple[Orbit, int], dict[int, ir.Value]] = {}
    for node, (orbit, t) in inside.items():
        for output, value in enumerate(node.outputs):
            if value.is_graph_output() or any(user not in inside for user in value.consumers()):
                found.setdefault((orbit, output), {})[t] = value
    return [Given(orbit, output, values) for (orbit, output), values in found.items()]
