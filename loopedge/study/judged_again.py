"""The runs of a finished pilot judged again: with another margin, or held against other limits."""

from collections.abc import Sequence
from dataclasses import replace

from loopedge.baselines.scores import BaselineScores
from loopedge.study.going_on import plan_again
from loopedge.study.judging.claims import strongest
from loopedge.study.judging.margin import make_margin
from loopedge.study.judging.requirements import Limits, check_requirements
from loopedge.study.judging.statements import (
    Equivalence,
    NextStep,
    NotConverged,
    Requirements,
    Statement,
)
from loopedge.study.judging.summary import in_common
from loopedge.study.judging.verdict import judge
from loopedge.study.result import PilotResult
from loopedge.study.words.english import sentence

__all__ = ["judged_again", "with_requirements"]

KEPT = ("name", "about", "validation", "test", "upper_bound", "seconds", "reason")
"""Of a baseline's scores in results.json."""


def judged_again(result: PilotResult, margin: str | float) -> PilotResult:
    """Return the result of a pilot with the verdict of another margin; no run is made.

    Args:
        result: As results.json holds it.
        margin: As `PilotOptions.margin`.

    Raises:
        InputError: The margin cannot be read.
    """
    higher, known = result.higher_is_better, result.verdict
    scores = {
        block: [BaselineScores(**{name: one[name] for name in KEPT}) for one in each]
        for block, each in result.baselines.items()
    }
    baseline = strongest(scores, result.metric, higher_is_better=higher)
    reference = None if baseline is None else baseline.value
    if baseline is None:
        reference = _best_of(result)
    resolved = make_margin(
        margin,
        reference=reference,
        name="the best model" if baseline is None else baseline.name,
        higher_is_better=higher,
        samples=None if known.claims is None else known.claims.samples,
    )
    verdict = judge(
        result.summary,
        metric=result.metric,
        higher_is_better=higher,
        margin=resolved,
        baseline=baseline,
        claims=known.claims,
        further=_kept(known.statements),
        plan=plan_again(result, margin),
    )
    return replace(result, verdict=verdict, margin=resolved.to_json())


def with_requirements(result: PilotResult, limits: Limits) -> PilotResult:
    """Return the result with its models held against limits; as it is where nothing is required."""
    found = check_requirements(result.summary, limits, higher_is_better=result.higher_is_better)
    if found is None:
        return result
    others = [one for one in result.verdict.statements if not isinstance(one, Requirements)]
    before = [one for one in others if not isinstance(one, NextStep)]
    after = [one for one in others if isinstance(one, NextStep)]
    statements = [*before, found, *after]
    names = result.verdict.names
    sentences = [text for one in statements[1:] if (text := sentence(one, names))]
    verdict = replace(result.verdict, statements=statements, sentences=sentences)
    return replace(result, verdict=verdict)


def _kept(statements: Sequence[Statement]) -> list[Statement]:
    """Return what does not hang on the margin."""
    return [one for one in statements if isinstance(one, Equivalence | NotConverged | Requirements)]


def _best_of(result: PilotResult) -> float | None:
    """Return the best mean validation metric, as the pilot takes its share of where there is no baseline."""
    whole = [row.validation for row in result.summary if row.is_whole and row.validation]
    found = [sum(of.values()) / len(of) for of in in_common(dict(enumerate(whole))).values() if of]
    return (max if result.higher_is_better else min)(found, default=None)
