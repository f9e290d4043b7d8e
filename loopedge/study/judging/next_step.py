"""What would decide a pilot that is undecided, and what comes after one that is decided."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopedge.study.judging.choice import probabilities, walk, whole_table
from loopedge.study.judging.claims import Claims
from loopedge.study.judging.evidence import Evidence
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
        is_unfinished: Runs are still missing.
        go_on: The command that makes them.
    """

    seconds: float | None = None
    more_seeds: Callable[[int], str] | None = None
    more_origins: Callable[[int], str] | None = None
    wider_margin: Callable[[float], str] | None = None
    is_unfinished: bool = False
    go_on: str | None = None


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
    decision: Decision, evidence: Evidence, *, subject: Candidate | None, plan: Plan
) -> NextStep | None:
    """Return what to do next.

    Args:
        decision: What was found.
        evidence: What it rests on.
        subject: The model that the facts are about.
        plan: How the pilot could go on.
    """
    if plan.is_unfinished:
        return NextStep(what="go-on", command=plan.go_on)
    why, seeds = decision.why, _seeds_of(evidence)
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
    if why == "one-count":
        return NextStep(what="more-loops")
    claims = evidence.claims
    known_period = claims is not None and claims.period_deviation is not None
    if why == "period" or (why == "splits" and known_period):
        return _more_of_the_period(plan)
    if decision.fewest is None:
        needed = None if why == "splits" else _seeds_for_claim(claims, subject, seeds)
        return _more_seeds(needed or _sizes(seeds)[0], seeds, plan)
    needed = _seeds_for_choice(evidence, seeds)
    return _wider_margin(evidence, plan) if needed is None else _more_seeds(needed, seeds, plan)


def _seeds_of(evidence: Evidence) -> int:
    """Return how many seeds there are at each origin."""
    blocks = {block for of in evidence.validation.values() for block in of}
    return max(1, len({block.partition("-")[0] for block in blocks}))


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


def _seeds_for_choice(evidence: Evidence, seeds: int) -> int | None:
    """Return at how many seeds the choice would be decided if means and deviation stayed; None: not soon."""
    per_seed = evidence.choice.blocks / seeds
    return next(
        (
            count
            for count in _sizes(seeds)
            if _is_decided(evidence, evidence.margin, round(count * per_seed))
        ),
        None,
    )


def _sizes(seeds: int) -> list[int]:
    """Return the numbers of seeds that are thought of: the looks, then half as many again each time; one at least."""
    sizes = [look for look in LOOKS if look > seeds]
    while not sizes or sizes[-1] * 1.5 <= MOST_SEEDS:
        sizes.append(math.ceil((sizes[-1] if sizes else seeds) * 1.5))
    return sizes


def _is_decided(evidence: Evidence, margin: float, blocks: int) -> bool:
    """Return whether the choice would be decided at so many blocks if means and deviation stayed."""
    table, deviation = whole_table(evidence.validation), evidence.choice.deviation
    if table is None or deviation is None:
        return False
    keys, rows = table
    means = (rows if evidence.higher else -rows).mean(axis=1)
    counts = np.array([loops for _, loops in keys])
    degrees = max(1, len(keys) - 1) * (blocks - 1)
    scale = np.array([deviation])
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


def _wider_margin(evidence: Evidence, plan: Plan) -> NextStep:
    """Return the least of a few wider margins with which the runs that there are decide."""
    for factor in (1.5, 2, 3, 5, 8):
        wide = _two_digits(evidence.margin * factor)
        if _is_decided(evidence, wide, evidence.choice.blocks):
            command = None if plan.wider_margin is None else plan.wider_margin(wide)
            return NextStep(what="wider-margin", margin=wide, command=command)
    return NextStep(what="longer-training")


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
