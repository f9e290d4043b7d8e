"""Align the iterations of an unrolled loop: which node of one is which node of the next.

An *orbit* is a node of the body that is to be: its members are the node's copies, by the number of the
iteration. `Alignment` starts from one orbit that is known, the readers of a tied weight (*anchors*), and walks backward
through all iterations at once (`loopedge.graph.rolling.walk`). Then it looks for what stands behind the last anchor, and for
what every iteration computes for the graph around.

Nothing is searched for, and nothing is guessed: what is aligned is proven. In which iteration an orbit stands is open until
`loopedge.graph.rolling.retiming` says: an orbit may have members from the second iteration on, because the first one starts
from something else.
"""

from collections.abc import Sequence

import onnx_ir as ir

from loopedge.graph.rolling.node_facts import NodeFacts, commutes, holds_body
from loopedge.graph.rolling.orbits import Misaligned, Orbit
from loopedge.graph.rolling.walk import Walk

__all__ = ["Alignment"]


class Alignment(Walk):
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
        super().__init__(facts, anchors)
        self._extend(self.orbits)
        if absorb:
            self._absorb()

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

    def _absorb(self) -> None:
        """Find orbits that the anchors do not depend on: what every iteration computes for the graph around."""
        waiting = list(self.orbits)
        for orbit in waiting:
            member = orbit.members[max(orbit.first, min(orbit.last, self.count))]
            for output, value in enumerate(member.outputs):
                for node, place in value.uses():
                    if node not in self.facts.place or node in self.where or holds_body(node):
                        continue
                    if self._raises_for_all(node):
                        continue
                    known = len(self.orbits)
                    self._absorb_reader(orbit, output, node, place)
                    waiting += self.orbits[known:]

    def _raises_for_all(self, node: ir.Node) -> bool:
        """Tell whether a node only adds the axis along which the values of all iterations are put together: a Loop stacks them."""
        if node.op_type != "Unsqueeze" or node.domain:
            return False
        readers = node.outputs[0].consumers()
        return bool(readers) and all(
            user.op_type == "Concat" and len(user.inputs) >= self.count for user in readers
        )

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
                if index == place or commutes(user)
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
        mark, wanted, known = len(self._undo), len(self._wanted), len(self.orbits)
        try:
            self._new(members)
            self._settle_from(known)
        except Misaligned:
            self._take_back(mark, wanted)
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
                if node in self.facts.place and (index == place or commutes(node))
            ]
            return any(
                self._try(orbit, t, node, strict) for strict in (True, False) for node in readers
            )
        return False

    def _try(self, orbit: Orbit, t: int, node: ir.Node, strict: bool) -> bool:
        """Add a member, or leave all as it was."""
        mark, wanted, self._strict = len(self._undo), len(self._wanted), strict
        if self._add(orbit, t, node) and self._add_wanted(wanted):
            return True
        self._take_back(mark, wanted)
        return False
