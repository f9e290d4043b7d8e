"""Tell which values look like copies of each other, where no proof has come by yet."""

import onnx_ir as ir

from loopedge.graph.rolling.node_facts import NodeFacts, commutes, is_constant, is_matrix
from loopedge.graph.rolling.orbits import Orbit, same_type

__all__ = ["Likeness"]

MOST_DEEP = 100
"""Nodes behind each other that are looked at, of what is computed before a loop."""


class Likeness:
    """What values look like, by signatures and hashes, and by the orbits that are known.

    Args:
        facts: Of the graph.
        where: The orbits of nodes, which grow meanwhile.
    """

    def __init__(self, facts: NodeFacts, where: dict[ir.Node, tuple[Orbit, int]]) -> None:
        self.facts, self.where = facts, where
        self._known: dict[tuple[ir.Value | None, ...], bool] = {}

    def order_like(self, node: ir.Node, model: ir.Node) -> tuple[int, ...]:
        """Return in which order a node reads what a copy of it reads: by what the inputs look like."""
        plain = tuple(range(max(len(node.inputs), len(model.inputs))))
        if not commutes(node) or len(node.inputs) != len(model.inputs):
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
            return 4 if same_type(one, other) else 0
        maker, twin = self.facts.producer(one), self.facts.producer(other)
        if maker is None or twin is None:
            return 0
        score = 2 if self.facts.signature(maker) == self.facts.signature(twin) else 0
        score += sum(hashes[maker] == hashes[twin] for hashes in self.facts.steps)
        mine, others = self.where.get(maker), self.where.get(twin)
        if mine is not None and others is not None:
            score += 8 if mine[0] is others[0] else -4
        return score

    def made_alike(self, values: tuple[ir.Value | None, ...], depth: int = 0) -> bool:
        """Tell whether values that are computed before the loop are computed alike, from small constants."""
        if values in self._known:
            return self._known[values]
        self._known[values] = False
        if depth > MOST_DEEP:
            return False
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
        orders = [self.order_like(node, nodes[-1]) for node in nodes]
        rows = [[node.inputs[k] for k in order] for node, order in zip(nodes, orders, strict=True)]
        answer = all(self._slot_alike(column, depth) for column in zip(*rows, strict=True))
        self._known[values] = answer
        return answer

    def _slot_alike(self, column: tuple[ir.Value | None, ...], depth: int) -> bool:
        if all(value is column[0] for value in column):
            return True
        if any(value is None for value in column):
            return False
        if all(is_constant(value) for value in column):
            return all(
                same_type(value, column[0]) and value is not None and not is_matrix(value)
                for value in column
            )
        return not any(is_constant(value) for value in column) and self.made_alike(
            column, depth + 1
        )
