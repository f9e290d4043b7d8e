"""The nodes of a body that is to be, and what their inputs are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from loopedge.graph.naming import is_made_up
from loopedge.graph.rolling.node_facts import holds_body, shown

__all__ = [
    "Misaligned",
    "Orbit",
    "Slot",
    "Values",
    "can_stack",
    "differing",
    "refuse_bodies",
    "same_type",
]

Values = dict[int, ir.Value | None]
"""By the number of an iteration, counted from the anchors."""


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
    settled: bool = False
    """Whether all its inputs are in ``slots``."""
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


def refuse_bodies(nodes: Iterable[ir.Node | None]) -> None:
    """Refuse control flow: no two bodies are compared.

    Raises:
        Misaligned: A node holds a body.
    """
    for node in nodes:
        if node is not None and holds_body(node):
            # A Loop that rolling made has no name yet that anybody knows.
            what = "another Loop" if is_made_up(node) else shown(node)
            raise Misaligned(f"{what} stands in an iteration: control flow is not rolled")


def differing(orbit: Orbit, what: str, makers: Mapping[int, ir.Node | None] | None = None) -> str:
    """Say where iterations differ: at an orbit, in ``what``, which several nodes make."""
    node = orbit.members[orbit.last]
    if makers is None:
        return f"iterations differ at {shown(node)}: {what}"
    kinds: dict[str, list[int]] = {}
    for t, maker in sorted(makers.items()):
        kinds.setdefault(maker.op_type if maker else "an input", []).append(t)
    if len(kinds) == 1:
        return f"iterations differ at {shown(node)}: {what} is shared by some of them alone"
    most, *others = sorted(kinds.items(), key=lambda item: -len(item[1]))
    rest = ", ".join(f"{len(ts)} x {kind} in iteration {_numbers(ts)}" for kind, ts in others)
    return f"iterations differ in what {shown(node)} reads: {len(most[1])} x {most[0]}, {rest}"


def _numbers(ts: list[int]) -> str:
    return ", ".join(map(str, ts[:4])) + (", ..." if len(ts) > 4 else "")


def same_type(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tell whether two stored values are of one type and shape."""
    if one is None or other is None or one.const_value is None or other.const_value is None:
        return False
    a, b = one.const_value, other.const_value
    return a.dtype == b.dtype and tuple(a.shape.numpy()) == tuple(b.shape.numpy())


def can_stack(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tell whether two values can be entries of one stack, as far as their types and shapes are known."""
    if one is None or other is None or one.dtype != other.dtype:
        return False
    if one.shape is None or other.shape is None:
        return one.shape is other.shape
    return len(one.shape) == len(other.shape) and all(
        a == b if isinstance(a, int) or isinstance(b, int) else True
        for a, b in zip(one.shape, other.shape, strict=True)
    )
