"""The iterations of a loop that is written out, laid side by side: which differ, and which read what earlier ones made.

An iteration goes from one reading of a tied weight to the next. Only a look: the proof is that of rolling itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from loopedge.graph.rolling.outlook.ordered_reads import OrderedReads

__all__ = ["Iterations", "iterations_of"]

FEWEST_TO_BE_DENSE = 4
"""Of fewer iterations, one link is all that there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterations:
    """What tells iterations apart. They are counted from 1, the last is not looked at: nothing ends it.

    Attributes:
        together: Iterations that repeat themselves together: 7 where every seventh differs from those between, as a loop
            in a loop has it.
        differences: What some iterations compute and others do not, a sentence each.
        crossed: Readings of what an earlier iteration than the one before made, where others read nothing of the kind, a
            sentence each. In units of ``together``, like the next.
        notes: What else is said of such readings.
    """

    together: int
    differences: list[str]
    crossed: list[str]
    notes: list[str]


def iterations_of(ordered: OrderedReads, weight: str) -> Iterations:
    """Compare the iterations between the readings of a weight, which follow each other.

    Args:
        ordered: The graph.
        weight: Name of a weight that is read once per iteration.
    """
    starts = {read.node for read in ordered.reads if read.weight.name == weight}
    number: dict[ir.Node, int] = {}
    first: dict[int, ir.Node] = {}
    for node in ordered.graph:
        before = max((number[maker] for maker in _makers(node) if maker in number), default=0)
        number[node] = before + (node in starts)
        if node in starts:
            first.setdefault(number[node], node)
    members = [
        _between(first[t + 1], number, t) for t in range(1, max(first, default=0)) if t + 1 in first
    ]
    counts = [Counter(node.op_type for node in nodes) for nodes in members]
    together = _together([tuple(sorted(count.items())) for count in counts])
    unit = {node: (t + together - 1) // together for node, t in number.items()}
    links = {
        (unit[node], unit[maker])
        for nodes in members
        for node in nodes
        for maker in _makers(node)
        if 0 < unit[maker] < unit[node] - 1
    }
    crossed, notes = _links(links, len(members) // together)
    return Iterations(
        together=together,
        differences=_differences(counts) if together == 1 else [],
        crossed=crossed,
        notes=notes,
    )


def _makers(node: ir.Node) -> Iterable[ir.Node]:
    for value in node.inputs:
        maker = None if value is None else value.producer()
        if maker is not None and maker.graph is node.graph:
            yield maker


def _between(end: ir.Node, number: dict[ir.Node, int], t: int) -> set[ir.Node]:
    """Return the nodes of iteration t that the first product of the next one depends on."""
    found: set[ir.Node] = set()
    waiting = [maker for maker in _makers(end) if number[maker] == t]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [maker for maker in _makers(node) if number[maker] == t]
    return found


def _differences(counts: Sequence[Counter[str]]) -> list[str]:
    """Say which iterations compute something else than most do."""
    kinds = Counter(tuple(sorted(count.items())) for count in counts)
    if len(kinds) < 2:
        return []
    usual, times = kinds.most_common(1)[0]
    if times == 1:
        return [f"no two of {len(counts)} iterations compute the same"]
    most = Counter(dict(usual))
    found = []
    for t, count in enumerate(counts, start=1):
        more, less = count - most, most - count
        parts = [
            f"{text} {_operators(part)}" for text, part in (("has", more), ("lacks", less)) if part
        ]
        if parts:
            found.append(f"iteration {t} {' and '.join(parts)}")
    return found


def _operators(count: Counter[str]) -> str:
    return ", ".join(f"{times} x {name}" for name, times in sorted(count.items()))


def _together(kinds: Sequence[object]) -> int:
    """Return the shortest period of a sequence, of which it shows two; 1 where there is none."""
    for period in range(1, len(kinds) // 2 + 1):
        if kinds[:-period] == kinds[period:]:
            return period
    return 1


def _links(links: set[tuple[int, int]], last: int) -> tuple[list[str], list[str]]:
    """Say which readings, (reading, read), are out of turn, and what else they show.

    In turn are: each iteration reads the one that stands equally far back, or all later ones read the same one.
    """
    if last >= FEWEST_TO_BE_DENSE and len(links) == (last - 1) * (last - 2) // 2:
        return [], [
            f"each of {last} iterations reads what all earlier ones made: as many states would be carried"
        ]
    steady = {
        back
        for back in {reading - read for reading, read in links}
        if all((t, t - back) in links for t in range(back + 1, last + 1))
    }
    outer = {
        read
        for read in {read for _, read in links}
        if all((t, read) in links for t in range(read + 2, last + 1))
    }
    crossed, notes = [], []
    for reading, read in sorted(links):
        back = reading - read
        if (back in steady and last - back > 1) or (read in outer and last - read > 2):
            continue
        sentence = f"iteration {reading} reads what iteration {read} made"
        if back in steady or read in outer:
            notes.append(
                f"{sentence}: a state of order {back}, which {last} iterations do not show"
            )
        else:
            crossed.append(f"{sentence}, others do not read one so far back")
    return crossed, notes
