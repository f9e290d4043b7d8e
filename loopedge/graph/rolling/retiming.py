"""Say in which iteration each orbit stands, so that as few values as possible go from one to the next.

Alignment counts from the anchors. Moving an orbit by one lets the iteration before compute it: it must where its first
member is missing, and it may where a further member stands behind the last iteration (Leiserson and Saxe, *Retiming
synchronous circuitry*, 1991). What crosses a border is a state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from loopedge.graph.rolling.alignment import Alignment
from loopedge.graph.rolling.node_facts import shown
from loopedge.graph.rolling.orbits import Misaligned, Orbit, Slot, differing

__all__ = ["MOST_STATES", "Schedule", "retime"]

MOST_STATES = 12
"""Of a Loop: what carries more, as dense connections over all iterations, is no loop that anybody wrote."""

MOST_MOVES = 12
"""By which an orbit is moved at most."""

HOLE, UNUSUAL = 0.3, 4.0
"""What a node costs that the last iteration computes in vain, and a state that is no float, in states."""

IN_VAIN, PRODUCTS_IN_VAIN = 1 / 5, 1 / 16
"""Share of all nodes, and of all products with a tied weight, that may be computed in vain."""

TRIED = 400
"""Borders that are tried."""


@dataclass(slots=True, eq=False)
class Schedule:
    """Where each orbit stands: iteration t of the Loop, from 1, is its member ``t + moves[orbit]``.

    ``kept`` are members of the first iteration that stay in the graph around too: states start from them.
    """

    alignment: Alignment
    moves: dict[Orbit, int]
    kept: set[ir.Node] = field(default_factory=set)

    @property
    def iterations(self) -> int:
        """How often the Loop runs."""
        return self.alignment.count

    def member(self, orbit: Orbit, t: int) -> ir.Node | None:
        """Return the node of an orbit in iteration t of the Loop; None: the source does not compute it."""
        return orbit.members.get(t + self.moves[orbit])

    def distance(self, orbit: Orbit, slot: Slot) -> int:
        """Return how many iterations before the value of an edge is made; 0: in the same."""
        assert slot.source is not None
        return slot.distance + self.moves[slot.source] - self.moves[orbit]

    def values(self, orbit: Orbit, slot: Slot) -> list[ir.Value]:
        """Return what the members of an orbit read in each iteration of the Loop, as far as there are members."""
        rows = (slot.values.get(t + self.moves[orbit]) for t in range(1, self.iterations + 1))
        return [value for value in rows if value is not None]

    def made(self, orbit: Orbit, output: int) -> list[ir.Value]:
        """Return an output of the members of an orbit in the iterations of the Loop, of those that have it."""
        members = (self.member(orbit, t) for t in range(1, self.iterations + 1))
        made = (() if member is None else member.outputs for member in members)
        return [outputs[output] for outputs in made if output < len(outputs)]

    def edges(self) -> Iterator[tuple[Orbit, Slot]]:
        """Yield the inputs that are outputs of orbits."""
        for orbit in self.alignment.orbits:
            for slot in orbit.slots:
                if slot.source is not None:
                    yield orbit, slot

    def holes(self, orbit: Orbit) -> int:
        """Return how many of the last iterations have no member of an orbit."""
        return max(0, self.iterations + self.moves[orbit] - orbit.last)

    def computed_in_vain(self) -> ir.Node | None:
        """Return a node of which the last iterations have no copy in the source; None: there is none."""
        orbits = (orbit for orbit in self.alignment.orbits if self.holes(orbit))
        return next((orbit.members[orbit.last] for orbit in orbits), None)

    def inside(self) -> dict[ir.Node, tuple[Orbit, int]]:
        """Return the nodes that the Loop replaces, with orbit and iteration."""
        return {
            node: (orbit, t - self.moves[orbit])
            for orbit in self.alignment.orbits
            for t, node in orbit.members.items()
            if 1 <= t - self.moves[orbit] <= self.iterations and node not in self.kept
        }


def retime(alignment: Alignment, tied: set[ir.Value]) -> Schedule:
    """Return the schedule with the fewest states.

    Raises:
        Misaligned: An iteration would need what a later one computes, or the last one reads a tied weight in vain.
    """
    moves = _least_moves(alignment)
    schedule = Schedule(alignment, moves)
    _check_holes(schedule, tied)
    _move_border(schedule)
    return schedule


def _least_moves(alignment: Alignment) -> dict[Orbit, int]:
    """Move each orbit as little as its missing members, and those of its readers, ask for."""
    moves = {orbit: orbit.first - 1 for orbit in alignment.orbits}
    waiting = list(alignment.orbits)
    while waiting:
        orbit = waiting.pop()
        for slot in orbit.slots:
            if slot.source is None:
                continue
            least = moves[orbit] - slot.distance
            if moves[slot.source] < least:
                if least > MOST_MOVES:
                    raise Misaligned("the first iterations differ from the others in too much")
                moves[slot.source] = least
                waiting.append(slot.source)
    return moves


def _check_holes(schedule: Schedule, tied: set[ir.Value]) -> None:
    """Refuse to compute much in vain, and orbits of which nothing is left.

    What the last iteration computes for a state that nobody reads is not in the source.
    """
    orbits = schedule.alignment.orbits
    products = [orbit for orbit in orbits if tied.intersection(orbit.members[orbit.last].inputs)]
    for group, share in ((orbits, IN_VAIN), (products, PRODUCTS_IN_VAIN)):
        in_vain = [orbit for orbit in group if schedule.holes(orbit)]
        missing = sum(map(schedule.holes, in_vain))
        if missing > share * len(group) * schedule.iterations:
            raise Misaligned(_different_start(schedule) or _missing(in_vain))


def _different_start(schedule: Schedule) -> str | None:
    """Say where first iterations compute something else, which leaves the last ones without a copy."""
    alignment = schedule.alignment
    for orbit, slot in schedule.edges():
        source = slot.source
        assert source is not None
        makers = {t: alignment.facts.producer(value) for t, value in slot.values.items()}
        inside = {t: maker for t, maker in makers.items() if maker and alignment.level[maker]}
        started = {maker.op_type for t, maker in inside.items() if t - slot.distance < source.first}
        if started - {source.members[source.last].op_type}:
            return differing(
                orbit, "", {alignment.level[maker]: maker for maker in inside.values()}
            )
    return None


def _missing(orbits: Sequence[Orbit]) -> str:
    node = orbits[0].members[orbits[0].last]
    others = f" and {len(orbits) - 1} other nodes have" if len(orbits) > 1 else " has"
    return f"iterations differ: {shown(node)}{others} no copy in the last one"


def _move_border(schedule: Schedule) -> None:
    """Move orbits that may be moved, those that run first at first, and keep the border that costs least."""
    alignment, moves = schedule.alignment, schedule.moves
    place = alignment.facts.place
    free = [
        orbit
        for orbit in alignment.orbits
        if orbit is not alignment.anchor and moves[orbit] + 1 + schedule.iterations <= orbit.last
    ]
    free.sort(key=lambda orbit: place[orbit.members[orbit.last]])
    best, least = dict(moves), _cost(schedule)
    for orbit in free[:TRIED]:
        if any(
            moves[slot.source] + slot.distance < moves[orbit] + 1
            for slot in orbit.slots
            if slot.source is not None
        ):
            continue
        moves[orbit] += 1
        cost = _cost(schedule)
        if cost < least:
            best, least = dict(moves), cost
    schedule.moves = best


def _cost(schedule: Schedule) -> float:
    """Return states, those of other types and unneeded nodes weighed."""
    oldest: dict[tuple[Orbit, int], int] = {}
    for orbit, slot in schedule.edges():
        assert slot.source is not None
        key = slot.source, slot.output
        oldest[key] = max(oldest.get(key, 0), schedule.distance(orbit, slot))
    cost = sum(HOLE * schedule.holes(orbit) for orbit in schedule.alignment.orbits)
    return cost + sum(age * _weight(source, output) for (source, output), age in oldest.items())


def _weight(source: Orbit, output: int) -> float:
    node: Mapping[int, ir.Node] = source.members
    value = node[source.last].outputs
    dtype = value[output].dtype if output < len(value) else None
    return 1.0 if dtype is None or dtype.is_floating_point() else UNUSUAL
