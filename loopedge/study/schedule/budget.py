"""A pilot within a time: what does worst in short runs is left out, so that the rest gets its seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loopedge.study.options import UNLOOPED

__all__ = ["Halving", "LeftOut", "Plan", "least_of", "leave_out"]

Key = tuple[str, int]

FIRST_SHARE = 1 / 8
"""Steps of the shortest runs, as a share of a full one's; each further rung has twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What the budget left out: an arm at a loop count, or runs of the last seeds.

    Args:
        reason: ``worse``: than others in short runs, on the validation split. ``longest``: it was not tried, for want of time. ``no-time``: the budget was used up.
        arm: Its arm; None: runs of all arms.
        loops: Its loop count; None: runs of all.
        runs: Full runs that were not made.
        share: Steps of the last short run, as a share of a full one's; 0: none was made.
        validation: The metric of that run on the validation split; None: none was made, or it did not finish.
    """

    reason: Literal["worse", "longest", "no-time"]
    arm: str | None = None
    loops: int | None = None
    runs: int = 0
    share: float = 0.0
    validation: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What halving needs to know.

    Args:
        fixed: Arms and loop counts that stay whatever they do in short runs.
        seconds: What the full runs of an arm at a loop count take that are not made yet.
        short_seconds: What a short run takes that is not made yet, by arm and loop count and share of the steps.
        runs: Full runs of each.
        higher_is_better: Direction of the metric.
    """

    fixed: frozenset[Key]
    seconds: Callable[[Key], float]
    short_seconds: Callable[[Key, float], float]
    runs: int
    higher_is_better: bool

    def whole(self, keys: Sequence[Key]) -> float:
        """Return the seconds of all full runs of some."""
        return sum(map(self.seconds, keys))

    def rung(self, keys: Sequence[Key], share: float) -> float:
        """Return the seconds of a short run of each of some."""
        return sum(self.short_seconds(key, share) for key in keys)


@dataclass(slots=True, kw_only=True)
class Halving:
    """What stays, and what was left out."""

    kept: list[Key]
    left_out: list[LeftOut] = field(default_factory=list)


def leave_out(
    compared: Sequence[Key],
    plan: Plan,
    seconds_left: Callable[[], float],
    try_short: Callable[[Sequence[Key], float], Mapping[Key, float | None]],
) -> Halving:
    """Leave out arms and loop counts until the full runs of the others fit into the time that is left.

    Successive halving (Jamieson and Talwalkar 2016): all are trained shortly, the worse half on the validation split is
    left out, the others are trained twice as long. It ends as soon as what is kept fits. Where there is no time for a
    rung, those that did worst up to there are left out at once, dearest first where none was tried. What is made
    already stays, also where no time is left.

    Args:
        compared: Arms and loop counts.
        plan: What they take.
        seconds_left: For everything that is still to come.
        try_short: Trains some with a share of the steps; returns the metric on the validation split.
    """
    found = Halving(kept=list(compared))
    scores: dict[Key, float | None] = {}
    share = 0.0
    while plan.whole(found.kept) > max(0.0, seconds_left()):
        loose = [
            key
            for key in found.kept
            if key not in plan.fixed and not _is_last(key, found) and plan.seconds(key) > 0
        ]
        if not loose:
            break
        wanted = share * 2 or FIRST_SHARE
        smallest = plan.whole(least_of(found.kept, plan))
        if wanted < 1 and plan.rung(found.kept, wanted) + smallest <= seconds_left():
            share = wanted
            scores = dict(try_short(found.kept, share))
            drop = max(1, len(loose) // 2)
        else:
            drop = 1
        for key in _worst(loose, scores, plan)[:drop]:
            if not _is_last(key, found):
                found.kept.remove(key)
                found.left_out.append(_left_out(key, share, scores, plan.runs))
    return found


def least_of(keys: Sequence[Key], plan: Plan) -> list[Key]:
    """Return what is kept at least: what is fixed, and the cheapest with more loops."""
    fixed = [key for key in keys if key in plan.fixed]
    more = _with_more_loops(keys)
    return fixed + sorted(more, key=plan.seconds)[:1]


def _is_last(key: Key, found: Halving) -> bool:
    """Return whether it is the only one left with more loops than the fewest: without it there is nothing to compare."""
    return _with_more_loops(found.kept) == [key]


def _with_more_loops(keys: Sequence[Key]) -> list[Key]:
    tied = [key for key in keys if key[0] not in UNLOOPED]
    fewest = min((loops for _, loops in tied), default=0)
    return [key for key in tied if key[1] > fewest]


def _worst(keys: Sequence[Key], scores: Mapping[Key, float | None], plan: Plan) -> list[Key]:
    """Return them in the order in which they are left out; those of equal merit the dearest first."""
    sign = 1 if plan.higher_is_better else -1

    def merit(key: Key) -> tuple[float, float]:
        score = scores.get(key)
        known = score is not None and math.isfinite(score)
        return (sign * score if known and score is not None else -math.inf, -plan.seconds(key))

    return sorted(keys, key=merit)


def _left_out(key: Key, share: float, scores: Mapping[Key, float | None], runs: int) -> LeftOut:
    return LeftOut(
        arm=key[0],
        loops=key[1],
        share=share,
        validation=scores.get(key),
        reason="worse" if key in scores else "longest",
        runs=runs,
    )
