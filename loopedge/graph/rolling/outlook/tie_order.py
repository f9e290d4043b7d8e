"""In which order a graph reads its tied weights: ``6 x (A B)``, ``3 x A, 3 x B``."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_uppercase

import numpy as np

from loopedge.graph.rolling.outlook.ordered_reads import OrderedReads, Read, Weight

__all__ = ["Repeat", "TieGroup", "TieOrder", "longest_repeat", "tie_order"]

MOST_REPEATS = 20
"""Repeated parts that are looked for in an order; behind them only neighbours are compared."""

SHOWN_TERMS = 8
"""Parts of an order that are written out; behind them stands how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TieGroup:
    """Weights that are read together, as those of a layer.

    Attributes:
        label: A letter, or several.
        weights: Their names, in the order in which they are read.
        bytes: Of all of them, stored once.
        reads: At how many depths each is read, one after the other.
        side_by_side: How many readings depend on no other reading of the same weight, as those of two towers; 1 in a loop.
    """

    label: str
    weights: list[str]
    bytes: int
    reads: int
    side_by_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A part of an order: what stands in it, and how often it is repeated. A group is its label."""

    times: int
    parts: "tuple[Repeat | str, ...]"

    @property
    def text(self) -> str:
        """The part as it is shown."""
        plain = all(isinstance(part, str) for part in self.parts)
        inside = (" " if plain else ", ").join(
            part if isinstance(part, str) else part.text for part in self.parts
        )
        if self.times == 1:
            return inside
        return f"{self.times} x {inside}" if len(self.parts) == 1 else f"{self.times} x ({inside})"

    @property
    def labels(self) -> list[str]:
        """The groups in it, each once, in order."""
        return list(
            dict.fromkeys(
                label
                for part in self.parts
                for label in ([part] if isinstance(part, str) else part.labels)
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TieOrder:
    """The order of ties.

    Attributes:
        order: The groups by their labels in the order of the graph, repeated ones once: ``A, 6 x (A B)``. Groups that are
            read side by side alone are left out where others are not. Empty where no product reads a weight that
            another one reads too.
        groups: What the labels stand for.
        repeats: The order, part by part.
    """

    order: str
    groups: list[TieGroup]
    repeats: tuple[Repeat, ...]


def tie_order(ordered: OrderedReads) -> TieOrder:
    """Return the order in which tied weights are read.

    Weights form a group when each of them is read once between two readings of the first. A group whose products
    repeat themselves, as those of two equal layers, is two groups.
    """
    readings = _readings(ordered)
    at: dict[Weight, list[int]] = {}
    for place, (weight, _) in enumerate(readings):
        at.setdefault(weight, []).append(place)
    members = [layer for group in _together(at) for layer in _layers(group, readings, at)]
    members.sort(key=lambda group: at[group[0]][0])
    groups = [
        TieGroup(
            label=_label(number),
            weights=[weight.name for weight in group],
            bytes=sum(weight.bytes for weight in group),
            reads=len(at[group[0]]),
            side_by_side=max(
                1, min(sum(not read.chained for read in ordered.of(weight)) for weight in group)
            ),
        )
        for number, group in enumerate(members)
    ]
    in_turn = any(group.reads > 1 for group in groups)
    starts = sorted(
        (place, group.label)
        for group, weights in zip(groups, members, strict=True)
        for place in at[weights[0]]
        if group.reads > 1 or not in_turn
    )
    repeats = _folded([label for _, label in starts])
    shown = ", ".join(repeat.text for repeat in repeats[:SHOWN_TERMS])
    if len(repeats) > SHOWN_TERMS:
        shown += f", ... ({len(repeats)} parts)"
    return TieOrder(order=shown, groups=groups, repeats=repeats)


def longest_repeat(tokens: Sequence[object]) -> tuple[int, int, int] | None:
    """Find the stretch of a sequence that repeats itself and covers most.

    Returns:
        Where it starts, how many tokens are repeated, how often they stand there; of equal ones the shortest, then the
        first. None where nothing is repeated.
    """
    numbers: dict[object, int] = {}
    coded = np.array([numbers.setdefault(token, len(numbers)) for token in tokens], np.int64)
    best: tuple[int, int, int] | None = None
    covered = 0
    for period in range(1, len(coded) // 2 + 1):
        same = coded[:-period] == coded[period:]
        edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
        starts, times = edges[::2], (edges[1::2] - edges[::2]) // period + 1
        covers = np.where(times > 1, times * period, 0)
        if len(covers) and covers.max() > covered:
            place = int(covers.argmax())
            covered = int(covers[place])
            best = int(starts[place]), period, int(times[place])
    return best


def _readings(ordered: OrderedReads) -> list[tuple[Weight, Read]]:
    """Return the readings of tied weights by depth; those of one weight at one depth are one."""
    uses: dict[Weight, int] = {}
    for read in ordered.reads:
        uses[read.weight] = uses.get(read.weight, 0) + 1
    found: dict[tuple[Weight, int], Read] = {}
    for read in ordered.reads:
        if uses[read.weight] > 1:
            found.setdefault((read.weight, read.depth), read)
    return [(weight, read) for (weight, _), read in found.items()]


def _together(at: dict[Weight, list[int]]) -> list[list[Weight]]:
    """Group weights that are read in turn, equally often."""
    groups: list[list[Weight]] = []
    open_groups: list[list[Weight]] = []
    for weight, places in at.items():
        open_groups = [
            group for group in open_groups if len(at[group[0]]) == 1 or at[group[0]][1] > places[0]
        ]
        for group in open_groups:
            first = at[group[0]]
            if len(first) == len(places) and all(
                start < place and (number + 1 == len(first) or place < first[number + 1])
                for number, (start, place) in enumerate(zip(first, places, strict=True))
            ):
                group.append(weight)
                break
        else:
            groups.append([weight])
            open_groups.append(groups[-1])
    return groups


def _layers(
    group: list[Weight],
    readings: Sequence[tuple[Weight, Read]],
    at: dict[Weight, list[int]],
) -> list[list[Weight]]:
    """Split a group whose products repeat themselves into its layers."""
    kinds = [(weight.shape, _surroundings(readings[at[weight][0]][1])) for weight in group]
    for period in range(1, len(group) // 2 + 1):
        if len(group) % period == 0 and kinds[:-period] == kinds[period:]:
            return [group[start : start + period] for start in range(0, len(group), period)]
    return [group]


def _surroundings(read: Read) -> tuple[str, ...]:
    """Return the operators that read a product."""
    return tuple(sorted({user.op_type for user in read.node.outputs[0].consumers()}))


def _folded(labels: Sequence[str]) -> tuple[Repeat, ...]:
    """Write a sequence with what is repeated in it once."""
    done: list[Repeat] = []
    rest = list(labels)
    for _ in range(MOST_REPEATS):
        found = longest_repeat(rest)
        if found is None:
            break
        start, period, times = found
        inside = _folded(rest[start : start + period])
        parts = tuple(
            part.parts[0] if part.times == 1 and len(part.parts) == 1 else part for part in inside
        )
        done += [*_folded(rest[:start]), Repeat(times=times, parts=parts)]
        rest = rest[start + period * times :]
    runs = ((label, len(list(run))) for label, run in groupby(rest))
    return (*done, *(Repeat(times=times, parts=(label,)) for label, times in runs))


def _label(number: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    rest, place = divmod(number, len(ascii_uppercase))
    return (_label(rest - 1) if rest else "") + ascii_uppercase[place]
