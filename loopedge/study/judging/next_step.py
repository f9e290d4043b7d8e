"""What would decide a pilot that is undecided, and what comes after one that is decided."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopedge.study.judging.choice import Choice, Table, probabilities, walk, whole_table
from loopedge.study.judging.claims import Claims
from loopedge.study.judging.statements import Candidate, Decision, NextStep
from loopedge.study.options import LOOKS

__all__ = ["Plan", "block_seconds", "next_step"]

MOST_SEEDS = 30
"""More are not asked for: then a wider margin or a longer test split decides."""
DRAWS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a pilot could go on, as the one who runs it knows.

    Args:
        seconds: A further seed of every arm and loop count takes, at every origin.
        more_seeds: Returns the command for so many seeds altogether.
        more_origins: Returns the command for so many origins; None where the task has no origins.
        wider_margin: Returns the command that judges the same runs with another margin.
    """

    seconds: float | None = None
    more_seeds: Callable[[int], str] | None = None
    more_origins: Callable[[int], str] | None = None
    wider_margin: Callable[[float], str] | None = None


def block_seconds(cells: Sequence[Mapping[str, Any]], *, jobs: int = 1) -> float | None:
    """Return what a further seed of all arms and loop counts takes at all origins, as the trainings so far took."""
    by_key: dict[tuple[str, int, int | None], list[float]] = {}
    for cell in cells:
        if cell.get("train_seconds") is not None:
            key = (cell["arm"], cell["loops"], cell.get("origin"))
            by_key.setdefault(key, []).append(cell["train_seconds"])
    if not by_key:
        return None
    return sum(sum(taken) / len(taken) for taken in by_key.values()) / max(1, jobs)


def next_step(
    decision: Decision,
    choice: Choice,
    validation: Table,
    claims: Claims | None,
    *,
    subject: Candidate | None,
    margin: float,
    higher_is_better: bool,
    seeds: int,
    plan: Plan,
) -> NextStep | None:
    """Return what to do next.

    Args:
        decision: What was found.
        choice: What it rests on.
        validation: As `decide` took them.
        claims: Against the baseline.
        subject: The candidate that the claim is about.
        margin: The difference that does not matter.
        higher_is_better: Of the metric.
        seeds: There are, at each origin.
        plan: How the pilot could go on.
    """
    why = decision.why
    if why == "nothing-finished":
        return NextStep(what="mend-runs")
    if why == "few-seeds":
        return _more_seeds(LOOKS[0], seeds, plan)
    if why in ("baseline", "baseline-as-good"):
        return NextStep(what="take-baseline")
    if decision.winner is not None:
        return NextStep(what="compare-untied")
    if why in ("loops", "one-loop"):
        return NextStep(what="deploy") if decision.chosen is not None else None
    if why == "splits" or (why == "period"):
        return _more_of_the_period(plan)
    if decision.fewest is not None:
        needed = _seeds_for_choice(choice, validation, margin, higher_is_better, seeds)
    else:
        needed = _seeds_for_claim(claims, subject, seeds)
    if needed is not None:
        return _more_seeds(needed, seeds, plan)
    return _wider_margin(choice, validation, margin, higher_is_better, plan)


def _more_seeds(needed: int, seeds: int, plan: Plan) -> NextStep:
    more = needed - seeds
    return NextStep(
        what="more-seeds",
        seeds=more,
        seconds=None if plan.seconds is None else plan.seconds * more,
        command=None if plan.more_seeds is None else plan.more_seeds(needed),
    )


def _more_of_the_period(plan: Plan) -> NextStep:
    if plan.more_origins is None:
        return NextStep(what="longer-data")
    return NextStep(what="more-origins", origins=3, command=plan.more_origins(3))


def _seeds_for_choice(
    choice: Choice, validation: Table, margin: float, higher_is_better: bool, seeds: int
) -> int | None:
    """Return at how many seeds the choice would be decided if means and deviation stayed; None: not soon."""
    table = whole_table(validation)
    if table is None or choice.deviation is None:
        return None
    per_seed = choice.blocks / seeds
    for count in _sizes(seeds):
        blocks = round(count * per_seed)
        if _is_decided(table, choice, margin, higher_is_better, blocks):
            return count
    return None


def _sizes(seeds: int) -> list[int]:
    """Return the numbers of seeds that are thought of: the looks, then half as many again each time."""
    sizes = [look for look in LOOKS if look > seeds]
    while not sizes or sizes[-1] * 1.5 <= MOST_SEEDS:
        sizes.append(math.ceil(max(seeds, *sizes, 1) * 1.5) if sizes else math.ceil(seeds * 1.5))
    return [size for size in sizes if size <= MOST_SEEDS]


def _is_decided(
    table: tuple[list[tuple[str, int]], np.ndarray],
    choice: Choice,
    margin: float,
    higher_is_better: bool,
    blocks: int,
) -> bool:
    keys, rows = table
    means = (rows if higher_is_better else -rows).mean(axis=1)
    counts = np.array([loops for _, loops in keys])
    degrees = max(1, len(keys) - 1) * (blocks - 1)
    scale = np.array([choice.deviation or 0.0])
    _, of_counts = probabilities(means[None], scale, degrees, blocks, counts, margin, DRAWS)
    levels = sorted(set(counts.tolist()))
    return walk(dict(zip(levels, of_counts[0].tolist(), strict=True)))[1]


def _seeds_for_claim(claims: Claims | None, subject: Candidate | None, seeds: int) -> int | None:
    """Return at how many seeds the interval would leave zero out if the difference stayed; None: not soon."""
    if claims is None or subject is None or claims.quantile is None:
        return None
    interval = claims.of(subject)
    if interval is None or claims.seed_deviation is None:
        return None
    room = (interval.mean / claims.quantile) ** 2 - (claims.period_deviation or 0.0) ** 2
    if room <= 0:
        return None
    needed = math.ceil(seeds * claims.seed_deviation**2 / room)
    return next((size for size in _sizes(seeds) if size >= needed), None)


def _wider_margin(
    choice: Choice, validation: Table, margin: float, higher_is_better: bool, plan: Plan
) -> NextStep:
    """Return the least of a few wider margins with which the runs that there are decide."""
    table = whole_table(validation)
    for factor in (1.5, 2, 3, 5, 8) if table is not None and choice.deviation is not None else ():
        wide = _two_digits(margin * factor)
        if table and _is_decided(table, choice, wide, higher_is_better, choice.blocks):
            command = None if plan.wider_margin is None else plan.wider_margin(wide)
            return NextStep(what="wider-margin", margin=wide, command=command)
    return NextStep(what="longer-training")


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
