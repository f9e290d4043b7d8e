"""Walk backward through all iterations of an unrolled loop at once: what each input of an orbit is.

| all members read | the input is |
|---|---|
| the same value | that value, of the graph around |
| stored values of one type and shape | a timestep table |
| values that are computed before the loop | a stack of them |
| outputs of another orbit, ``distance`` iterations before | that output; across iterations a state |

Anything else is `Misaligned`.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import onnx_ir as ir

from loopedge.graph.rolling.likeness import Likeness
from loopedge.graph.rolling.node_facts import NodeFacts, commutes, is_constant, is_matrix
from loopedge.graph.rolling.orbits import (
    Misaligned,
    Orbit,
    Slot,
    Values,
    can_stack,
    differing,
    refuse_bodies,
    same_type,
)

__all__ = ["Walk"]

MOST_EARLY = 2
"""Iterations that may start from something else: as many as a state is old at most, as a rule."""


class Walk:
    """The orbits that a loop's anchors depend on, found by walking backward through all iterations at once.

    Args:
        facts: Of the graph.
        anchors: One node per iteration, in order.

    Raises:
        Misaligned: The iterations are not copies of each other.
    """

    def __init__(
        self,
        facts: NodeFacts,
        anchors: Sequence[ir.Node],
    ) -> None:
        self.facts = facts
        self.count = len(anchors)
        self.level = facts.levels(anchors)
        self.orbits: list[Orbit] = []
        self.where: dict[ir.Node, tuple[Orbit, int]] = {}
        self._strict = False
        self._wanted: list[tuple[Orbit, int, ir.Node]] = []
        self._undo: list[Callable[[], None]] = []
        self._readers: dict[Orbit, list[tuple[Orbit, Slot]]] = {}
        self.likeness = Likeness(facts, self.where)
        if len({facts.signature(node) for node in anchors}) > 1:
            kinds = Counter(node.op_type for node in anchors)
            found = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
            raise Misaligned(f"the readers of a weight differ: {found}")
        self.anchor = self._new(dict(enumerate(anchors, start=1)))
        self._settle_from(0)

    def _level(self, value: ir.Value | None) -> int:
        maker = self.facts.producer(value)
        return 0 if maker is None else self.level[maker]

    def _new(self, members: dict[int, ir.Node]) -> Orbit:
        refuse_bodies(members.values())
        orbit = Orbit(members=members)
        for t, node in members.items():
            self.where[node] = (orbit, t)
        self._order_inputs(orbit)
        self.orbits.append(orbit)
        self._undo.append(lambda: self._drop(orbit))
        return orbit

    def _drop(self, orbit: Orbit) -> None:
        """Forget the orbit that was made last."""
        assert self.orbits[-1] is orbit
        self.orbits.pop()
        for node in orbit.members.values():
            del self.where[node]
        for slot in orbit.slots:
            if slot.source is not None:
                self._readers[slot.source].remove((orbit, slot))

    def _take_back(self, mark: int, wanted: int) -> None:
        """Undo what was done since there were so many steps to undo and members wanted."""
        del self._wanted[wanted:]
        while len(self._undo) > mark:
            self._undo.pop()()

    def _order_inputs(self, orbit: Orbit) -> None:
        model = orbit.members[orbit.last]
        orbit.order[orbit.last] = tuple(range(len(model.inputs)))
        for t, node in orbit.members.items():
            if t not in orbit.order:
                orbit.order[t] = self.likeness.order_like(node, model)

    def _settle_from(self, number: int) -> None:
        """Say of the orbits from a number on what their inputs are, which makes further orbits."""
        while number < len(self.orbits):
            if not self.orbits[
                number
            ].slots:  # else on the way, where a later value showed an orbit
                self._settle(self.orbits[number])
            number += 1

    def _settle(self, orbit: Orbit) -> None:
        rows = {t: orbit.inputs(t) for t in orbit.members}
        for place in range(max(len(row) for row in rows.values())):
            values = {t: row[place] if place < len(row) else None for t, row in rows.items()}
            slot = self._slot(orbit, place, values)
            orbit.slots.append(slot)
            if slot.source is not None:
                self._readers.setdefault(slot.source, []).append((orbit, slot))
        orbit.settled = True

    def _slot(self, orbit: Orbit, place: int, values: Values) -> Slot:
        found = list(values.values())
        if all(value is None for value in found):
            return Slot("absent", values)
        if any(value is None for value in found):
            raise Misaligned(differing(orbit, f"input {place} is there in some iterations alone"))
        if all(value is found[0] for value in found) and (
            len(found) > 1 or self._level(found[0]) == 0 or is_constant(found[0])
        ):
            return Slot("outer", values)
        if all(is_constant(value) for value in found):
            if not all(same_type(value, found[0]) for value in found):
                raise Misaligned(
                    differing(orbit, f"the constants of input {place} have several shapes")
                )
            return Slot("table", values)
        known = self._known_edge(values)
        if known is not None:
            return known
        if all(self._level(value) == 0 for value in found) and not self.likeness.made_alike(
            tuple(found)
        ):
            if not all(can_stack(value, found[0]) for value in found):
                raise Misaligned(
                    differing(orbit, f"the values of input {place} have several shapes")
                )
            return Slot("stack", values)
        return self._new_edge(orbit, place, values)

    def _known_edge(self, values: Values) -> Slot | None:
        """Return the edge to an orbit that makes the values already.

        None: there is none, or it does not make all of them: what two states start from may be one node of another orbit.
        """
        votes: Counter[tuple[Orbit, int, int]] = Counter()
        for t, value in values.items():
            maker = self.facts.producer(value)
            if maker in self.where:
                source, e = self.where[maker]
                votes[source, maker.outputs.index(value), t - e] += 1
        if not votes:
            return None
        ((source, output, distance), _), *_ = votes.most_common()
        slot = Slot("edge", values, source, output, distance)
        mark, wanted = len(self._undo), len(self._wanted)
        fits = all(self._fits_edge(slot, t, values[t]) for t in sorted(values))
        if fits and self._add_wanted(wanted):
            return slot
        self._take_back(mark, wanted)
        return None

    def _fits_edge(self, slot: Slot, t: int, value: ir.Value | None) -> bool:
        """Tell whether a value is what an edge says, where its source takes a further member that is missing now."""
        source = slot.source
        assert source is not None
        e = t - slot.distance
        member = source.members.get(e)
        if member is not None:
            return slot.output < len(member.outputs) and member.outputs[slot.output] is value
        if e < source.first:
            return True  # what the loop starts from
        maker = self.facts.producer(value)
        if maker is None or value is None or maker.outputs.index(value) != slot.output:
            return False
        self._wanted.append((source, e, maker))
        return True

    def _new_edge(self, orbit: Orbit, place: int, values: Values) -> Slot:
        """Make an orbit of what makes the values; the first iterations may start from something else."""
        makers = {t: self.facts.producer(value) for t, value in values.items()}
        refuse_bodies([makers[max(values)]])
        outputs = {
            t: maker.outputs.index(values[t]) for t, maker in makers.items() if maker and values[t]
        }
        alike = Counter(
            (self.facts.signature(maker), outputs[t]) for t, maker in makers.items() if maker
        )
        if not alike:
            raise Misaligned(
                differing(orbit, f"input {place} is another input of the graph each time")
            )
        last = max(values)
        ending = makers[last] if makers[last] not in self.where else None
        chosen = (self.facts.signature(ending), outputs[last]) if ending else None
        first = last + 1
        behind: set[ir.Node] = set()
        while first - 1 in values and (maker := makers[first - 1]) is not None:
            known = maker in self.where or maker in behind
            if known or (self.facts.signature(maker), outputs[first - 1]) != chosen:
                break
            behind.add(maker)
            first -= 1
        members = {t: maker for t, maker in makers.items() if t >= first and maker is not None}
        if not members or len(set(members.values())) < len(members):
            raise Misaligned(differing(orbit, f"input {place}", makers))
        early = {t: maker for t, maker in makers.items() if t < first}
        if len(early) > max(MOST_EARLY, len(values) // 3):
            raise Misaligned(differing(orbit, f"input {place}", makers))
        source = self._new(members)
        return Slot("edge", values, source, outputs[last], 0)

    def _reach(self, orbit: Orbit) -> int:
        """Return the last iteration that an orbit may have a member of."""
        return self.count + max(1, orbit.first - 1)

    def _add_wanted(self, known: int) -> bool:
        """Give orbits the members that edges ask for, past so many that were asked for before, and those that these ask for."""
        while len(self._wanted) > known:
            orbit, t, node = self._wanted.pop()
            member = orbit.members.get(t)
            if member is not node and (member is not None or not self._add(orbit, t, node)):
                return False
        return True

    def _add(self, orbit: Orbit, t: int, node: ir.Node) -> bool:
        """Give an orbit a further member, where that reads what the others do; what was done stays where it does not."""
        if node in self.where or orbit is self.anchor or not orbit.settled:
            return False
        if t > self._reach(orbit) or t - 1 not in orbit.members:
            return False
        model = orbit.members[orbit.last]
        if self.facts.signature(node) != self.facts.signature(model):
            return False
        orbit.members[t] = node
        orbit.order[t] = self._order_added(orbit, t, node)
        self.where[node] = (orbit, t)

        def forget() -> None:
            del orbit.members[t], orbit.order[t], self.where[node]
            for slot in orbit.slots:
                slot.values.pop(t, None)

        self._undo.append(forget)
        inputs = orbit.inputs(t)
        if len(inputs) < len(orbit.slots):
            inputs += [None] * (len(orbit.slots) - len(inputs))
        return len(inputs) == len(orbit.slots) and all(
            self._fits(orbit, slot, t, value)
            for slot, value in zip(orbit.slots, inputs, strict=True)
        )

    def _order_added(self, orbit: Orbit, t: int, node: ir.Node) -> tuple[int, ...]:
        """Return in which order a further member reads its inputs: what is known decides, else what they look like."""
        model = orbit.members[t - 1]
        if not commutes(node) or len(node.inputs) != len(model.inputs):
            return tuple(range(max(len(orbit.slots), len(node.inputs))))
        likely = self.likeness.order_like(node, model)
        base = tuple(likely[k] for k in orbit.order[t - 1])
        if len(base) != 2:
            return base
        for turned in (base, base[::-1]):
            if self._matches(orbit, t, [node.inputs[k] for k in turned]):
                return turned
        return base

    def _matches(self, orbit: Orbit, t: int, inputs: Sequence[ir.Value | None]) -> bool:
        """Tell whether no input contradicts what is known of its slot."""
        for slot, value in zip(orbit.slots, inputs, strict=True):
            if slot.kind == "outer" and value is not next(iter(slot.values.values())):
                return False
            if slot.source is not None:
                member = slot.source.members.get(t - slot.distance)
                if member is not None and member.outputs[slot.output] is not value:
                    return False
        return True

    def _fits(self, orbit: Orbit, slot: Slot, t: int, value: ir.Value | None) -> bool:
        one = next(iter(slot.values.values()))
        fits = False
        if slot.kind == "absent":
            fits = value is None
        elif slot.kind == "outer" and value is one:
            fits = True
        elif slot.kind in {"outer", "table"}:
            fits = (
                is_constant(value)
                and is_constant(one)
                and same_type(value, one)
                and (slot.kind == "table" or self._may_differ(orbit, value))
            )
            if fits and slot.kind == "outer":
                slot.kind = "table"
                self._undo.append(lambda: setattr(slot, "kind", "outer"))
        elif slot.kind == "stack":
            fits = value is not None and self._level(value) == 0
        elif slot.kind == "edge":
            fits = value is not None and self._fits_edge(slot, t, value)
        if not fits and slot.source is None:
            values = {**slot.values, t: value}
            fits = self._becomes_edge(orbit, slot, values) or self._becomes_orbit(
                orbit, slot, values
            )
        if fits:
            slot.values[t] = value
        return fits

    def _becomes_edge(self, orbit: Orbit, slot: Slot, values: Values) -> bool:
        """Tell whether a later value shows that an input is a state, and what was read before it were its starts."""
        *_, t = values
        value = values[t]
        maker = self.facts.producer(value)
        if maker is None or value is None or maker not in self.where:
            return False
        source, e = self.where[maker]
        distance = t - e
        if distance < 1 or any(early - distance >= source.first for early in slot.values):
            return False
        self._read_from(orbit, slot, source, maker.outputs.index(value), distance)
        return True

    def _becomes_orbit(self, orbit: Orbit, slot: Slot, values: Values) -> bool:
        """Tell whether a later value shows that an input, which seemed to be there before the loop, is made in it."""
        *earlier, t = values
        if slot.kind not in {"outer", "stack"} or (len(earlier) > 1 and slot.kind == "outer"):
            return False
        makers = [self.facts.producer(values[k]) for k in (earlier[-1], t)]
        if any(maker is None or maker in self.where for maker in makers):
            return False
        mark, wanted, known = len(self._undo), len(self._wanted), len(self.orbits)
        try:
            made = self._new_edge(orbit, 0, values)
            self._settle_from(known)
        except Misaligned:
            self._take_back(mark, wanted)
            return False
        assert made.source is not None
        self._read_from(orbit, slot, made.source, made.output, 0)
        return True

    def _read_from(
        self, orbit: Orbit, slot: Slot, source: Orbit, output: int, distance: int
    ) -> None:
        """Make an input an edge."""
        before = (slot.kind, slot.source, slot.output, slot.distance)

        def forget() -> None:
            slot.kind, slot.source, slot.output, slot.distance = before
            self._readers[source].remove((orbit, slot))

        slot.kind, slot.source, slot.output, slot.distance = "edge", source, output, distance
        self._readers.setdefault(source, []).append((orbit, slot))
        self._undo.append(forget)

    def _may_differ(self, orbit: Orbit, value: ir.Value | None) -> bool:
        """A constant may change with an iteration that is needed, but no matrix does."""
        return not self._strict and orbit.first > 1 and value is not None and not is_matrix(value)
