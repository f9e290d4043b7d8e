"""What can be said of rolling a graph before it is tried: the order of its ties, and why it cannot be rolled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from loopedge.graph.core.loop_view import loops_among
from loopedge.graph.rolling.copies import EqualCopies, equal_copies
from loopedge.graph.rolling.outlook.iterations import Iterations, iterations_of
from loopedge.graph.rolling.outlook.ordered_reads import OrderedReads, ordered_reads
from loopedge.graph.rolling.outlook.stacks import Stack, stack_of_blocks
from loopedge.graph.rolling.outlook.tie_order import Repeat, TieGroup, TieOrder, tie_order
from loopedge.units import size_text

__all__ = ["MOST_PAIRS", "Outlook", "outlook_of", "reason_against"]

SHORT_LOOP = 2
"""Iterations of a Loop that is short."""

MOST_PAIRS = 2
"""Loops of two iterations that are built at most, where there are no longer ones: more of them save nothing."""

MOST_NAMES = 4
"""Weights that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Whether a graph is worth rolling.

    Attributes:
        rollable: Whether it reads weights again and again, one product after the other. Only the attempt shows whether it
            rolls: what is computed around the products is looked at no further than ``notes`` say.
        iterations: How often the longest stretch is repeated, the outer loop of a loop in a loop; None where nothing is.
        reason: Why it is not rollable, a sentence; None where it is.
        notes: What differs between iterations, and other things that rolling may stumble over, a sentence each.
    """

    rollable: bool
    iterations: int | None
    reason: str | None
    notes: list[str]


def reason_against(model: ir.Model) -> str | None:
    """Say why a graph cannot be rolled, as far as its weights tell; None where they do not.

    Args:
        model: Any graph. Not modified.
    """
    model = model.clone()
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    copies = equal_copies(model)
    ordered = ordered_reads(model, copies)
    return outlook_of(ordered, tie_order(ordered), copies).reason


def outlook_of(ordered: OrderedReads, ties: TieOrder, copies: Iterable[EqualCopies]) -> Outlook:
    """Judge a graph by the order in which it reads its weights.

    Args:
        ordered: The graph and its products.
        ties: As `tie_order` returns them.
        copies: Weights that hold the same.
    """
    stack = stack_of_blocks(ordered)
    chains = [group for group in ties.groups if group.reads > 1]
    repeats = [repeat for repeat in ties.repeats if repeat.times > 1]
    reason = (_looped(ordered) if not chains else None) or _reason(
        ordered, ties, chains, repeats, stack, copies
    )
    if reason is not None:
        return Outlook(rollable=False, iterations=None, reason=reason, notes=[])
    longest = max(repeats, key=lambda repeat: repeat.times * len(repeat.labels))
    seen = {repeat: _compared(ordered, ties, repeat) for repeat in repeats}
    found = seen[longest]
    notes: list[str] = []
    for repeat, each in seen.items():
        where = f"{repeat.text}: " if len(repeats) > 1 else ""
        notes += [f"{where}{sentence}" for sentence in _notes(each)]
    together = 1 if found is None else found.together
    return Outlook(rollable=True, iterations=longest.times // together, reason=None, notes=notes)


def _reason(
    ordered: OrderedReads,
    ties: TieOrder,
    chains: Sequence[TieGroup],
    repeats: Sequence[Repeat],
    stack: Stack | None,
    copies: Iterable[EqualCopies],
) -> str | None:
    if not ordered.reads:
        return "none of its products reads a stored weight"
    if not ties.groups:
        return _untied(stack)
    if not chains:
        return _side_by_side(ties.groups)
    if not repeats:
        return f"its tied weights are read in the order {ties.order}: nothing in it is repeated in a row"
    if (
        stack is not None
        and stack.shared
        and stack.own
        and stack.blocks > SHORT_LOOP
        and stack.own_bytes > stack.shared_bytes  # else its own are rows of a table
    ):
        return _partly_shared(stack)
    return _short_loops(ties, repeats, sum(each.saved_bytes for each in copies))


def _looped(ordered: OrderedReads) -> str | None:
    loops = loops_among(ordered.graph)
    if not loops:
        return None
    counts = [loop.most_iterations for loop in loops]
    shown = ", ".join(
        loop.name if count is None else f"{loop.name} of {count} iterations"
        for loop, count in zip(loops, counts, strict=True)
    )
    return f"it has its Loop already: {shown}"


def _untied(stack: Stack | None) -> str:
    if stack is None or not stack.own:
        return "no weight is read by two products"
    size = size_text(stack.own_bytes)
    return (
        f"{stack.blocks} blocks of equal structure have weights of their own, {size} in all: nothing is tied, "
        f"and the graph, {stack.blocks} times as long as that of one block, is loaded as it stands"
    )


def _side_by_side(groups: Sequence[TieGroup]) -> str:
    most = max(group.side_by_side for group in groups)
    names = _names([name for group in groups for name in group.weights])
    return (
        f"{names} are read {most} times side by side: no reading depends on another one's result, "
        "so there are no iterations"
    )


def _partly_shared(stack: Stack) -> str:
    return (
        f"{stack.blocks} blocks share {_names(stack.shared)}, but each has its own {_names(stack.own)}: "
        f"{size_text(stack.own_bytes)} differ by block, {size_text(stack.shared_bytes)} do not"
    )


def _short_loops(ties: TieOrder, repeats: Sequence[Repeat], saved_bytes: int) -> str | None:
    """Name layers that are shared by neighbours alone, as those of MobileLLM: a Loop for each pair saves nothing."""
    if len(repeats) <= MOST_PAIRS or any(
        repeat.times > SHORT_LOOP or len(repeat.labels) > 1 for repeat in repeats
    ):
        return None
    copies = (
        f"; its equal copies, {size_text(saved_bytes)}, could be stored once without Loops"
        if saved_bytes
        else ", for each weight is stored once"
    )
    return (
        f"its layers are shared by neighbours alone ({ties.order}): {len(repeats)} Loops of {SHORT_LOOP} iterations "
        f"would save no bytes{copies}"
    )


def _compared(ordered: OrderedReads, ties: TieOrder, repeat: Repeat) -> Iterations | None:
    """Lay the iterations of a stretch side by side; None where it is too short, or no weight tells them apart."""
    for group in ties.groups:
        if group.label in repeat.labels and group.reads == repeat.times > SHORT_LOOP:
            return iterations_of(ordered, group.weights[0]) if group.side_by_side == 1 else None
    return None


def _notes(seen: Iterations | None) -> list[str]:
    if seen is None:
        return []
    nested = f"every {seen.together} readings repeat themselves together: a loop in a loop"
    return [*([nested] if seen.together > 1 else []), *seen.differences, *seen.crossed, *seen.notes]


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
