"""Align the iterations of an unrolled loop: which node of one is which node of the next.

An *orbit* is a node of the body that is to be: its members are the node's copies, by the number of the
iteration. `Alignment` starts from one orbit that is known, the readers of a tied weight (*anchors*), and walks
backward through all iterations at once. What each input of an orbit is follows from what its members read there:

| all members read | the input is |
|---|---|
| the same value | that value, of the graph around |
| stored values of one type and shape | a timestep table |
| values that are computed before the loop | a stack of them |
| outputs of another orbit, ``distance`` iterations before | that output; across iterations a state |

Anything else is `Misaligned`. Nothing is searched for, and nothing is guessed: what is aligned is proven. In which iteration
an orbit stands is open until `loopedge.graph.rolling.retiming` says: an orbit may have members from the second
iteration on, because the first one starts from something else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from loopedge.graph.rolling.node_facts import (
    COMMUTATIVE,
    NodeFacts,
    holds_body,
    is_constant,
    is_matrix,
)

__all__ = ["Alignment", "Misaligned", "Orbit", "Slot"]

Values = dict[int, ir.Value | None]

MOST_EARLY = 2
"""Iterations that may start from something else: as many as a state is old at most, as a rule."""


class Misaligned(Exception):  # noqa: N818  # an answer, not an error
    """Iterations differ; the text says where."""


@dataclass(slots=True, eq=False)
class Slot:
    """One input of an orbit.

    ``values`` holds what each member reads. An ``edge`` reads output ``output`` of ``source``, ``distance`` iterations
    before; where that has no member, the value is what the loop starts from.
    """

    kind: Literal["absent", "outer", "table", "stack", "edge"]
    values: Values
    source: "Orbit | None" = None
    output: int = 0
    distance: int = 0


@dataclass(slots=True, eq=False)
class Orbit:
    """Copies of one node, by the number of the iteration, counted from the anchors."""

    members: dict[int, ir.Node]
    slots: list[Slot] = field(default_factory=list)
    order: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Of each member, which of its inputs stands where: operators that commute are written either way."""

    @property
    def first(self) -> int:
        """The first iteration that has a member."""
        return min(self.members)

    @property
    def last(self) -> int:
        """The last iteration that has a member."""
        return max(self.members)

    def inputs(self, t: int) -> list[ir.Value | None]:
        """Return what the member of an iteration reads, in the order of the orbit."""
        found = self.members[t].inputs
        return [found[place] if place < len(found) else None for place in self.order[t]]


class Alignment:
    """The orbits of a loop, found from its anchors.

    Args:
        facts: Of the graph.
        anchors: One node per iteration, in order.
        absorb: Look as well for what every iteration computes for the graph around, and no later one reads.

    Raises:
        Misaligned: The iterations are not copies of each other.
    """

    def __init__(
        self, facts: NodeFacts, anchors: Sequence[ir.Node], *, absorb: bool = True
    ) -> None:
        self.facts = facts
        self.count = len(anchors)
        self.level = facts.levels(anchors)
        self.orbits: list[Orbit] = []
        self.where: dict[ir.Node, tuple[Orbit, int]] = {}
        self._strict = False
        self._undo: list[Callable[[], None]] = []
        self._readers: dict[Orbit, list[tuple[Orbit, Slot]]] = {}
        self._aligned_before: dict[tuple[ir.Value | None, ...], bool] = {}
        if len({facts.signature(node) for node in anchors}) > 1:
            kinds = Counter(node.op_type for node in anchors)
            found = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
            raise Misaligned(f"the readers of a weight differ: {found}")
        self.anchor = self._new(dict(enumerate(anchors, start=1)))
        self._settle_from(0)
        self._extend(self.orbits)
        if absorb:
            self._absorb()

    def _level(self, value: ir.Value | None) -> int:
        maker = self.facts.producer(value)
        return 0 if maker is None else self.level[maker]

    # ---- orbits from members ----

    def _new(self, members: dict[int, ir.Node]) -> Orbit:
        _refuse_bodies(members.values())
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

    def _take_back(self, mark: int) -> None:
        """Undo what was done since there were so many steps to undo."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def _order_inputs(self, orbit: Orbit) -> None:
        model = orbit.members[orbit.last]
        orbit.order[orbit.last] = tuple(range(len(model.inputs)))
        for t, node in orbit.members.items():
            if t not in orbit.order:
                orbit.order[t] = self._order_like(node, model)

    def _order_like(self, node: ir.Node, model: ir.Node) -> tuple[int, ...]:
        """Return in which order a node reads what a copy of it reads: by what the inputs look like."""
        plain = tuple(range(max(len(node.inputs), len(model.inputs))))
        if node.op_type not in COMMUTATIVE or node.domain or len(node.inputs) != len(model.inputs):
            return plain
        if len(plain) == 2:
            turned = (1, 0)
            likeness = [
                sum(
                    self._alike(node.inputs[place], model.inputs[k])
                    for k, place in enumerate(order)
                )
                for order in (plain, turned)
            ]
            return turned if likeness[1] > likeness[0] else plain
        left, order = list(plain), []
        for value in model.inputs:
            best = max(left, key=lambda place: self._alike(node.inputs[place], value))
            left.remove(best)
            order.append(best)
        return tuple(order)

    def _alike(self, one: ir.Value | None, other: ir.Value | None) -> int:
        """Tell how much two values look like copies of each other."""
        if one is other:
            return 6
        if is_constant(one) != is_constant(other):
            return -8
        if one is None or other is None:
            return 0
        if is_constant(one):
            return 4 if _same_type(one, other) else 0
        maker, twin = self.facts.producer(one), self.facts.producer(other)
        if maker is None or twin is None:
            return 0
        score = 2 if self.facts.signature(maker) == self.facts.signature(twin) else 0
        if self.facts.hashes[maker] == self.facts.hashes[twin]:
            score += 3
        mine, others = self.where.get(maker), self.where.get(twin)
        if mine is not None and others is not None:
            score += 8 if mine[0] is others[0] else -4
        return score

    # ---- inputs of an orbit ----

    def _settle_from(self, number: int) -> None:
        """Say of the orbits from a number on what their inputs are, which makes further orbits."""
        while number < len(self.orbits):
            if not self.orbits[number].slots:  # else on the way, where a later value showed an orbit
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

    def _slot(self, orbit: Orbit, place: int, values: Values) -> Slot:
        found = list(values.values())
        if all(value is None for value in found):
            return Slot("absent", values)
        if any(value is None for value in found):
            raise Misaligned(
                self._differs(orbit, f"input {place} is there in some iterations alone")
            )
        if all(value is found[0] for value in found) and (
            len(found) > 1 or self._level(found[0]) == 0 or is_constant(found[0])
        ):
            return Slot("outer", values)
        if all(is_constant(value) for value in found):
            if not all(_same_type(value, found[0]) for value in found):
                raise Misaligned(
                    self._differs(orbit, f"the constants of input {place} have several shapes")
                )
            return Slot("table", values)
        known = self._known_edge(values)
        if known is not None:
            return known
        if all(self._level(value) == 0 for value in found) and not self._aligned(tuple(found)):
            if not all(_can_stack(value, found[0]) for value in found):
                raise Misaligned(
                    self._differs(orbit, f"the values of input {place} have several shapes")
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
        mark = len(self._undo)
        if all(self._fits_edge(slot, t, values[t]) for t in sorted(values)):
            return slot
        self._take_back(mark)
        return None

    def _fits_edge(self, slot: Slot, t: int, value: ir.Value | None) -> bool:
        """Tell whether a value is what an edge says, giving its source a further member where one is missing."""
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
        return self._add(source, e, maker)

    def _new_edge(self, orbit: Orbit, place: int, values: Values) -> Slot:
        """Make an orbit of what makes the values; the first iterations may start from something else."""
        makers = {t: self.facts.producer(value) for t, value in values.items()}
        _refuse_bodies([makers[max(values)]])
        outputs = {
            t: maker.outputs.index(values[t]) for t, maker in makers.items() if maker and values[t]
        }
        alike = Counter(
            (self.facts.signature(maker), outputs[t]) for t, maker in makers.items() if maker
        )
        if not alike:
            raise Misaligned(
                self._differs(orbit, f"input {place} is another input of the graph each time")
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
            raise Misaligned(self._differs(orbit, f"input {place}", makers))
        early = {t: maker for t, maker in makers.items() if t < first}
        if len(early) > max(MOST_EARLY, len(values) // 3):
            raise Misaligned(self._differs(orbit, f"input {place}", makers))
        source = self._new(members)
        return Slot("edge", values, source, outputs[last], 0)

    def _aligned(self, values: tuple[ir.Value | None, ...]) -> bool:
        """Tell whether values that are computed before the loop are computed alike, from small constants."""
        if values in self._aligned_before:
            return self._aligned_before[values]
        self._aligned_before[values] = False
        makers = [self.facts.producer(value) for value in values]
        if any(maker is None for maker in makers) or len(set(makers)) < len(makers):
            return False
        nodes = [maker for maker in makers if maker is not None]
        if any(node in self.where for node in nodes):
            return False
        if len({self.facts.signature(node) for node in nodes}) > 1:
            return False
        places = {
            node.outputs.index(value) for node, value in zip(nodes, values, strict=True) if value
        }
        if len(places) > 1 or len({len(node.inputs) for node in nodes}) > 1:
            return False
        orders = [self._order_like(node, nodes[-1]) for node in nodes]
        rows = [[node.inputs[k] for k in order] for node, order in zip(nodes, orders, strict=True)]
        answer = all(self._aligned_slot(column) for column in zip(*rows, strict=True))
        self._aligned_before[values] = answer
        return answer

    def _aligned_slot(self, column: tuple[ir.Value | None, ...]) -> bool:
        if all(value is column[0] for value in column):
            return True
        if any(value is None for value in column):
            return False
        if all(is_constant(value) for value in column):
            return all(
                _same_type(value, column[0]) and value is not None and not is_matrix(value)
                for value in column
            )
        return not any(is_constant(value) for value in column) and self._aligned(column)

    # ---- members of later iterations ----

    def _extend(self, orbits: Sequence[Orbit]) -> None:
        """Find members behind the last iteration of the anchors: what follows the last of them."""
        waiting = dict.fromkeys(orbits)
        while waiting:
            orbit = next(iter(waiting))
            del waiting[orbit]
            while orbit is not self.anchor and orbit.last < self._reach(orbit):
                known = len(self.orbits)
                if not self._extend_once(orbit):
                    break
                waiting.update(dict.fromkeys(self.orbits[known:]))
                waiting.update(dict.fromkeys(reader for reader, _ in self._readers.get(orbit, ())))

    def _reach(self, orbit: Orbit) -> int:
        return self.count + max(1, orbit.first - 1)

    def _absorb(self) -> None:
        """Find orbits that the anchors do not depend on: what every iteration computes for the graph around."""
        waiting = list(self.orbits)
        for orbit in waiting:
            member = orbit.members[max(orbit.first, min(orbit.last, self.count))]
            for output, value in enumerate(member.outputs):
                for node, place in value.uses():
                    if node not in self.facts.place or node in self.where or holds_body(node):
                        continue
                    known = len(self.orbits)
                    self._absorb_reader(orbit, output, node, place)
                    waiting += self.orbits[known:]

    def _absorb_reader(self, orbit: Orbit, output: int, model: ir.Node, place: int) -> None:
        """Make an orbit of a reader of an orbit and its copies in the other iterations, where they are copies."""
        members: dict[int, ir.Node] = {}
        for t, node in orbit.members.items():
            readers = [
                user
                for user, index in (
                    node.outputs[output].uses() if output < len(node.outputs) else ()
                )
                if user in self.facts.place and user not in self.where
                if index == place or user.op_type in COMMUTATIVE
                if self.facts.signature(user) == self.facts.signature(model)
            ]
            if readers:
                near = self.facts.hashes[model]
                members[t] = min(readers, key=lambda user: self.facts.hashes[user] != near)
        last = max(members, default=0)
        first = next((t for t in range(last, 0, -1) if t - 1 not in members), 0)
        members = {t: node for t, node in members.items() if t >= first}
        if len(members) < self.count or len(set(members.values())) < len(members):
            return
        mark, known = len(self._undo), len(self.orbits)
        try:
            self._new(members)
            self._settle_from(known)
        except Misaligned:
            self._take_back(mark)
            return
        self._extend(self.orbits[known:])

    def _extend_once(self, orbit: Orbit) -> bool:
        """Give an orbit the member of one more iteration: a reader of what it reads there, those with equal constants first."""
        t = orbit.last + 1
        for place, slot in enumerate(orbit.slots):
            source = slot.source
            member = source.members.get(t - slot.distance) if source is not None else None
            if member is None or slot.output >= len(member.outputs):
                continue
            readers = [
                node
                for node, index in member.outputs[slot.output].uses()
                if node in self.facts.place and (index == place or node.op_type in COMMUTATIVE)
            ]
            return any(
                self._try(orbit, t, node, strict) for strict in (True, False) for node in readers
            )
        return False

    def _try(self, orbit: Orbit, t: int, node: ir.Node, strict: bool) -> bool:
        """Add a member, or leave all as it was."""
        mark, self._strict = len(self._undo), strict
        if self._add(orbit, t, node):
            return True
        self._take_back(mark)
        return False

    def _add(self, orbit: Orbit, t: int, node: ir.Node) -> bool:
        """Give an orbit a further member, where that reads what the others do; what was done stays where it does not."""
        if node in self.where or orbit is self.anchor or not orbit.slots:
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
        if node.op_type not in COMMUTATIVE or len(node.inputs) != len(model.inputs):
            return tuple(range(max(len(orbit.slots), len(node.inputs))))
        likely = self._order_like(node, model)
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
                and _same_type(value, one)
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
        mark, known = len(self._undo), len(self.orbits)
        try:
            made = self._new_edge(orbit, 0, values)
            self._settle_from(known)
        except Misaligned:
            self._take_back(mark)
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

    # ---- what is said ----

    def _differs(
        self, orbit: Orbit, what: str, makers: Mapping[int, ir.Node | None] | None = None
    ) -> str:
        node = orbit.members[orbit.last]
        if makers is None:
            return f"iterations differ at {node.op_type} {node.name or ''}: {what}"
        kinds: dict[str, list[int]] = {}
        for t, maker in sorted(makers.items()):
            kinds.setdefault(maker.op_type if maker else "an input", []).append(t)
        if len(kinds) == 1:
            return f"iterations differ at {node.op_type} {node.name or ''}: {what} is shared by some of them alone"
        most, *others = sorted(kinds.items(), key=lambda item: -len(item[1]))
        rest = ", ".join(f"{len(ts)} x {kind} in iteration {_numbers(ts)}" for kind, ts in others)
        return f"iterations differ in what {node.op_type} {node.name or ''} reads: {len(most[1])} x {most[0]}, {rest}"


def _refuse_bodies(nodes: Iterable[ir.Node | None]) -> None:
    for node in nodes:
        if node is not None and holds_body(node):
            raise Misaligned(
                f"{node.op_type} {node.name or ''} stands in an iteration: control flow is not rolled"
            )


def _numbers(ts: list[int]) -> str:
    return ", ".join(map(str, ts[:4])) + (", ..." if len(ts) > 4 else "")


def _same_type(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tell whether two stored values are of one type and shape."""
    if one is None or other is None or one.const_value is None or other.const_value is None:
        return False
    a, b = one.const_value, other.const_value
    return a.dtype == b.dtype and tuple(a.shape.numpy()) == tuple(b.shape.numpy())


def _can_stack(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tell whether two values can be entries of one stack, as far as their types and shapes are known."""
    if one is None or other is None or one.dtype != other.dtype:
        return False
    if one.shape is None or other.shape is None:
        return one.shape is other.shape
    return len(one.shape) == len(other.shape) and all(
        a == b if isinstance(a, int) or isinstance(b, int) else True
        for a, b in zip(one.shape, other.shape, strict=True)
    )
