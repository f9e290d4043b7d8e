"""Give a graph its loops back: canonicalised, candidates tried, each proven before it is built."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.captures import captured_roundings
from loopedge.graph.core.loop_view import loops_among
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.naming import is_made_up, keep_names_apart
from loopedge.graph.rolling.alignment import Alignment
from loopedge.graph.rolling.anchors import Candidate, candidates, tied_matrices
from loopedge.graph.rolling.building import build_loop
from loopedge.graph.rolling.canonical import canonicalise
from loopedge.graph.rolling.carried import (
    Given,
    State,
    carried_states,
    check_order,
    check_stacks,
    given_values,
)
from loopedge.graph.rolling.node_facts import NodeFacts, is_matrix, shown
from loopedge.graph.rolling.orbits import Misaligned, Orbit, Slot
from loopedge.graph.rolling.outlook.answer import MOST_PAIRS
from loopedge.graph.rolling.retiming import Schedule, retime
from loopedge.graph.rolling.rolled_loop import RolledLoop
from loopedge.graph.rolling.whole_stacks import take_stacks_whole

__all__ = ["Rolling", "roll"]

ROLLED = "rolled"
"""What Loops are called, with a number, until all are there."""

OF_ROLLED = re.compile(rf"^({ROLLED}\d*)([/.].*)?$")

FEWEST_ITERATIONS = 2

ALIKE = 3
"""Weights of equally many uses that are tried: what refuses one refuses the others of its iteration, as a rule."""


@dataclass(slots=True, kw_only=True)
class Rolling:
    """A graph with its loops, and why what repeats in it was left as it is.

    Args:
        model: The new graph.
        loops: In the order of the graph; empty where there are none.
        reasons: Why candidates were refused, those first that would have saved most.
    """

    model: ir.Model
    loops: list[RolledLoop] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def roll(model: ir.Model, *, inner: bool = False) -> Rolling:
    """Return the graph with Loops in the place of iterations that are written out.

    Requires: a graph of any tool.

    Ensures: what it computes is the same, up to rounding where constants were folded; inputs and outputs keep their
    names and order; weights that are equal are stored once.

    Args:
        model: Not modified.
        inner: Roll what repeats in the body of a Loop too.
    """
    rolled = model.clone()
    canonicalise(rolled)
    rolling = Rolling(model=rolled)
    known = {view.name for view in loops_among(rolled.graph)}
    _roll_graph(rolled.graph, rolled.graph, rolling.loops, rolling.reasons, ROLLED)
    take_stacks_whole(rolled)
    common.RemoveUnusedNodesPass()(rolled)
    if len(rolling.loops) > MOST_PAIRS and all(loop.iterations == 2 for loop in rolling.loops):
        pairs = len(rolling.loops)
        reason = (
            f"{pairs} pairs of equal layers follow each other, each with weights of its own: {pairs} Loops of two "
            "iterations would save no bytes"
        )
        return Rolling(model=rolled, reasons=[reason])
    _name_in_order(rolled.graph, rolling.loops, known)
    if inner:
        bodies = {view.name: view.body for view in loops_among(rolled.graph)}
        for loop in rolling.loops:
            body = bodies[loop.name]
            body.sort()
            _roll_graph(rolled.graph, body, loop.inner, rolling.reasons, f"{loop.name}/inner.")
            loop.nodes = sum(1 for _ in body.all_nodes())
    _carry_roundings(rolled)
    keep_names_apart(rolled)
    return rolling


def _roll_graph(
    main: ir.Graph, graph: ir.Graph, loops: list[RolledLoop], reasons: list[str], name: str
) -> None:
    """Roll one graph until nothing is left that repeats, in place."""
    refused: dict[Candidate, str] = {}
    built: list[tuple[RolledLoop, Candidate]] = []
    while True:
        facts = NodeFacts(graph)
        tied = tied_matrices(facts)
        ranked = _ranked(facts, tied)
        for candidate in ranked:
            if candidate in refused:
                continue
            try:
                found, proof = _proven(facts, candidate, set(tied), refused)
                called = _numbered(name, len(loops))
                loop = build_loop(main, proof.schedule, proof.states, proof.given, called)
            except Misaligned as reason:
                refused[candidate] = str(reason)
                continue
            loops.append(loop)
            built.append((loop, found))
            break
        else:
            for loop, found in built:
                _say_peeled(graph, loop, found, refused)
            first = {candidate.weight: candidate for candidate in reversed(ranked)}
            reasons += [
                f"{weight.name}, read {len(candidate.uses)} times: {refused[candidate]}"
                for weight, candidate in sorted(
                    first.items(), key=lambda item: ranked.index(item[1])
                )
            ]
            return


def _ranked(facts: NodeFacts, tied: Mapping[ir.Value, list[ir.Node]]) -> list[Candidate]:
    """Return the candidates of a few weights of each number of uses, those first that leave the smallest share written out."""
    found: list[Candidate] = []
    tries: dict[int, int] = {}
    for weight, uses in tied.items():
        tries[len(uses)] = tries.get(len(uses), 0) + 1
        if tries[len(uses)] <= ALIKE:
            found += candidates(facts, weight, uses)
    return sorted(found, key=lambda candidate: candidate.remaining / len(candidate.uses))


def _numbered(name: str, known: int) -> str:
    if name.endswith("."):
        return f"{name}{known}"
    return name if known == 0 else f"{name}{known + 1}"


def _proven(
    facts: NodeFacts, candidate: Candidate, tied: set[ir.Value], refused: dict[Candidate, str]
) -> tuple[Candidate, "_Proof"]:
    """Prove a candidate, or the same without its last iteration where that needs fewer values.

    Raises:
        Misaligned: It is no loop; nothing has changed.
    """
    proof = _prove_either(facts, candidate, tied)
    vain = proof.schedule.computed_in_vain()
    if vain is None or candidate.count == FEWEST_ITERATIONS:
        return candidate, proof
    shorter = replace(candidate, count=candidate.count - 1)
    try:
        other = _prove_either(facts, shorter, tied)
    except Misaligned as reason:
        refused[shorter] = str(reason)
        return candidate, proof
    if other.values >= proof.values:
        return candidate, proof
    refused[candidate] = f"{shown(vain)} has no copy in the last iteration"
    return shorter, other


def _prove_either(facts: NodeFacts, candidate: Candidate, tied: set[ir.Value]) -> "_Proof":
    """Prove a candidate, with what every iteration computes for the graph around or without.

    Raises:
        Misaligned: It is no loop.
    """
    try:
        return _prove(facts, candidate, tied, absorb=True)
    except Misaligned:
        return _prove(facts, candidate, tied, absorb=False)


@dataclass(frozen=True, slots=True)
class _Proof:
    schedule: Schedule
    states: dict[tuple[Orbit, Slot], State]
    given: list[Given]

    @property
    def values(self) -> int:
        """How many values go from one iteration to the next, or are kept of every iteration."""
        stacked = [given for given in self.given if set(given.values) != {self.schedule.iterations}]
        return sum(state.order for state in dict.fromkeys(self.states.values())) + len(stacked)


def _prove(facts: NodeFacts, candidate: Candidate, tied: set[ir.Value], *, absorb: bool) -> _Proof:
    """Align the iterations of a candidate and say what its Loop carries and gives.

    Raises:
        Misaligned: They are not alike, or a Loop would not be worth it.
    """
    schedule = retime(Alignment(facts, candidate.anchors, absorb=absorb), tied)
    states = carried_states(schedule)
    check_order(schedule, states, tied)
    given = given_values(schedule)
    check_stacks(schedule, given)
    _check_worth(schedule, given)
    return _Proof(schedule, states, given)


def _say_peeled(
    graph: ir.Graph, loop: RolledLoop, candidate: Candidate, refused: Mapping[Candidate, str]
) -> None:
    """Note why iterations stand outside of a Loop; those that are another Loop by now do not."""
    uses = candidate.uses
    in_front, behind = uses[: candidate.skipped], uses[len(uses) - candidate.left :]
    if any(node.graph is graph for node in in_front):
        loop.peeled_first = _reason_without(
            lambda other: (other.skipped >= candidate.skipped, other.left != candidate.left),
            candidate,
            refused,
        )
    if any(node.graph is graph for node in behind):
        loop.peeled_last = _reason_without(
            lambda other: (other.left >= candidate.left, other.skipped != candidate.skipped),
            candidate,
            refused,
        )


def _reason_without(
    rank: Callable[[Candidate], tuple[bool, bool]],
    candidate: Candidate,
    refused: Mapping[Candidate, str],
) -> str:
    """Return why a candidate with more iterations was refused: the first that ranks lowest."""
    others = [
        other
        for other in refused
        if (other.weight, other.stride) == (candidate.weight, candidate.stride)
    ]
    best = min(others, key=rank, default=None)
    if best is None or rank(best)[0]:
        return f"the other uses of {candidate.weight.name} differ from these"
    return refused[best]


def _check_worth(schedule: Schedule, given: Sequence[Given]) -> None:
    """Refuse a Loop that would not make the graph smaller.

    Raises:
        Misaligned: It would read matrices by iteration that weigh more than what is tied, or take more nodes.
    """
    own, tied, nodes, facts = 0, 0, 0, schedule.alignment.facts
    for orbit in schedule.alignment.orbits:
        nodes += 1
        for slot in orbit.slots:
            values = schedule.values(orbit, slot)
            if slot.kind == "table" and is_matrix(values[0]):
                own += sum(map(facts.bytes, values))
            elif slot.kind == "outer" and is_matrix(facts.unfolded.get(values[0], values[0])):
                tied += facts.bytes(values[0])
    if own > tied:
        raise Misaligned(
            f"each iteration has weights of its own, {own:,} bytes, beside {tied:,} bytes that are tied"
        )
    if nodes + _overhead(schedule, given) >= len(schedule.inside()):
        raise Misaligned(
            f"a Loop would take as many nodes as the {schedule.iterations} iterations do"
        )


def _overhead(schedule: Schedule, given: Sequence[Given]) -> int:
    """Return the nodes that a Loop takes beside those of its body: itself, its condition, rows, stacks and picks."""
    rows: set[tuple[ir.Value, ...]] = set()
    stacks: set[tuple[ir.Value, ...]] = set()
    for orbit in schedule.alignment.orbits:
        for slot in orbit.slots:
            values = tuple(schedule.values(orbit, slot))
            if slot.kind in {"table", "stack"} and len(set(values)) > 1:
                rows.add(values)
                stacks.update([values] if slot.kind == "stack" else [])
    stacked = [each for each in given if set(each.values) != {schedule.iterations}]
    picks = sum(1 + len(each.values) for each in stacked)
    return 2 + len(rows) + sum(1 + len(set(values)) for values in stacks) + picks


def _carry_roundings(model: ir.Model) -> None:
    """Hand to Loops, as states, what ONNX Runtime would abort at if their bodies captured it, in place."""
    for found in captured_roundings(model):
        for loop in [
            each for graph in (model.graph, *model.graph.subgraphs()) for each in loops_among(graph)
        ]:
            graph = loop.node.graph
            made = [] if graph is None else [output for node in graph for output in node.outputs]
            value = next((each for each in made if each.name == found.value), None)
            if loop.name == found.reader and value is not None:
                loop.carry(value)


def _name_in_order(graph: ir.Graph, loops: list[RolledLoop], known: set[str]) -> None:
    """Name new Loops, and what belongs to them, in the order of the graph, in place; those that were there keep their names."""
    by_name = {loop.name: loop for loop in loops}
    loops[:] = [by_name[view.name] for view in loops_among(graph) if view.name in by_name]
    free = (name for number in count() if (name := _numbered(CORE_NAME, number)) not in known)
    names = {loop.name: name for loop, name in zip(loops, free, strict=False)}
    for loop in loops:
        loop.name = names[loop.name]
    for each in (graph, *graph.subgraphs()):
        for named in (*each.inputs, *each, *(output for node in each for output in node.outputs)):
            found = OF_ROLLED.match(named.name or "")
            if found and found[1] in names and is_made_up(named):
                named.name = names[found[1]] + (found[2] or "")
