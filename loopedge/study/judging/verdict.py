"""What a pilot says, and by which rule.

    judge(summary, metric=..., higher_is_better=..., margin=..., baseline=..., claims=...) -> Verdict

It stands on `Summary` rows (`summarise`), the `Margin`, the strongest `Baseline` and the `Claims` against it; all four are in
results.json, so that a page can be made again, with another margin too. `loopedge.study.judging.judgement.judge_runs` makes
them of the runs. ``further`` takes statements of others: convergence, equivalence, requirements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loopedge.study.judging.choice import Choice
from loopedge.study.judging.claims import Baseline, Claims
from loopedge.study.judging.evidence import Evidence
from loopedge.study.judging.facts import encoding_facts, facts_of, loops_fact, untied_facts
from loopedge.study.judging.margin import Margin
from loopedge.study.judging.next_step import Plan, next_step
from loopedge.study.judging.statements import (
    Candidate,
    Decision,
    Outcome,
    Statement,
    Why,
)
from loopedge.study.judging.statistics import LEAST_SEEDS
from loopedge.study.judging.summary import Summary
from loopedge.study.words.english import headline, sentence
from loopedge.study.words.figures import Names, quality_text

__all__ = ["RULE", "Verdict", "judge", "quality_text"]

RULE = (
    "The loop count is chosen on the validation split: the fewest loops whose best arm is within the margin of the best of "
    "all with a probability of 80 %; where it is between 20 and 80 %, the pilot is undecided. At that count the plainest arm "
    "is taken that is itself within the margin. All figures are of the test split. A model beats the strongest baseline where "
    "its 95 % interval says so; the intervals hold for all models at once, over the seeds and over the samples of the test "
    "split. Where validation and test disagree on what is chosen, the pilot is undecided."
)
SAME_SIZE = 1.5
"""A network without a loop is no larger up to so many times the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a pilot found.

    Args:
        outcome: Is a looped model worth it for this data?
        headline: The sentence that decides, in English.
        sentences: The others.
        statements: The facts that both say, `Decision` first.
        choice: Of the loop count and the arm.
        claims: Against the strongest baseline; None where there is none.
        margin: The difference that does not matter.
        recommended: ``arm`` and ``loops``; None where the data does not allow it.
        baseline: ``name``, ``about`` and mean ``value`` of the strongest baseline; None where there is none.
        names: How figures are written.
        rule: How it was judged.
    """

    outcome: Outcome
    headline: str
    sentences: list[str]
    statements: list[Statement]
    choice: Choice
    claims: Claims | None
    margin: Margin
    recommended: dict[str, Any] | None
    baseline: dict[str, Any] | None
    names: Names
    rule: str = RULE

    @property
    def needs_seeds(self) -> bool:
        """Whether ``--seeds auto`` goes on: the choice is open, and the baseline does not surely beat all models.

        Only the choice asks for more seeds, never the claim against the baseline: who looks again until a claim holds finds
        one that does not.
        """
        return self.choice.outcome == "undecided" and self.outcome == "undecided"

    def statement(self, kind: str) -> Statement | None:
        """Return the first statement of a kind."""
        return next((one for one in self.statements if one.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "outcome": self.outcome,
            "headline": self.headline,
            "sentences": self.sentences,
            "statements": [one.to_json() for one in self.statements],
            "choice": self.choice.to_json(),
            "claims": None if self.claims is None else self.claims.to_json(),
            "margin": self.margin.to_json(),
            "recommended": self.recommended,
            "baseline": self.baseline,
            "rule": self.rule,
        }


def judge(
    summary: Sequence[Summary],
    *,
    metric: str,
    higher_is_better: bool,
    margin: Margin,
    baseline: Baseline | None = None,
    claims: Claims | None = None,
    further: Sequence[Statement] = (),
    plan: Plan | None = None,
) -> Verdict:
    """Return the verdict on the table rows of a pilot.

    Args:
        summary: Table rows by arm and loop count.
        metric: Which one decides.
        higher_is_better: Its direction.
        margin: The difference that does not matter.
        baseline: The strongest one.
        claims: Of all arms against it.
        further: Statements of others, which follow.
        plan: How the pilot could go on.
    """
    evidence = Evidence(summary, higher_is_better, margin, baseline, claims)
    decision = decide_on(evidence)
    subject = subject_of(evidence.choice, decision)
    statements: list[Statement] = [decision, *facts_of(evidence, decision, subject), *further]
    step = next_step(decision, evidence, subject=subject, plan=plan or Plan())
    if step is not None:
        statements.append(step)
    deviation = evidence.choice.deviation
    names = Names(
        metric=metric,
        margin=margin.value,
        margin_text=margin.text,
        step=Names.step_of(margin.value, deviation),
    )
    chosen = decision.chosen
    return Verdict(
        outcome=decision.outcome,
        headline=headline(statements, names),
        sentences=[text for one in statements[1:] if (text := sentence(one, names))],
        statements=statements,
        choice=evidence.choice,
        claims=claims,
        margin=margin,
        recommended=None if chosen is None else {"arm": chosen.arm, "loops": chosen.loops},
        baseline=None
        if baseline is None
        else {"name": baseline.name, "about": baseline.about, "value": baseline.value},
        names=names,
    )


def subject_of(choice: Choice, decision: Decision) -> Candidate | None:
    """Return the model that the facts are about: what is chosen, or else the best."""
    return decision.chosen or choice.chosen or choice.best


def decide_on(evidence: Evidence) -> Decision:
    """Return the outcome and what it rests on."""
    choice = evidence.choice
    if choice.best is None:
        return _decided(evidence, "undecided", "nothing-finished")
    if choice.blocks < LEAST_SEEDS:
        return _decided(evidence, "undecided", "few-seeds")
    if evidence.all_lose():
        return _decided(evidence, "no", "baseline", winner=evidence.baseline_name())
    if choice.chosen is None:
        return _decided(evidence, "undecided", "seeds", fewest=choice.count, most=choice.best.loops)
    chosen, effect = choice.chosen, evidence.against_baseline(choice.chosen)
    if effect == "worse":
        return _decided(evidence, "no", "baseline", winner=evidence.baseline_name())
    if effect == "equal":
        return _decided(evidence, "no", "baseline-as-good", winner=evidence.baseline_name())
    if _splits_disagree(evidence, chosen):
        return _decided(evidence, "undecided", "splits")
    winner = _untied_winner(evidence, chosen)
    if winner is not None and winner[1] <= SAME_SIZE:
        return _decided(evidence, "no", "untied", winner=winner[0])
    if effect == "undecided" and chosen.loops > 1:
        of_period = evidence.claims is not None and evidence.claims.is_of_period
        return _decided(evidence, "undecided", "period" if of_period else "seeds")
    if choice.counts.keys() == {1}:
        return _decided(evidence, "undecided", "one-count")
    return _decided(
        evidence,
        "yes" if chosen.loops > 1 else "no",
        "loops" if chosen.loops > 1 else "one-loop",
        chosen=chosen if effect == "better" else None,
        winner=None if winner is None else winner[0],
    )


def _decided(
    evidence: Evidence,
    outcome: Outcome,
    why: Why,
    *,
    chosen: Candidate | None = None,
    fewest: int | None = None,
    most: int | None = None,
    winner: str | None = None,
) -> Decision:
    choice = evidence.choice
    return Decision(
        outcome=outcome,
        why=why,
        blocks=choice.blocks,
        counts=tuple(sorted(choice.counts)),
        chosen=chosen,
        best=choice.best,
        fewest=fewest,
        most=most,
        winner=winner,
        sure=None if choice.chosen is None else choice.sure(choice.chosen),
    )


def _splits_disagree(evidence: Evidence, chosen: Candidate) -> bool:
    """Return whether the test split speaks against what validation chose, on what is told of it.

    It does where more loops are chosen that are not even better on average; where fewer are chosen and more are better
    by more than the margin, and surely; where an encoding is chosen or left and the test split surely says otherwise.
    """
    loops = loops_fact(evidence, chosen)
    if loops is not None:
        many = Candidate(arm=chosen.arm, loops=loops.many)
        few = Candidate(arm=chosen.arm, loops=loops.few)
        if loops.many == chosen.loops and evidence.gain(many, few) <= 0:
            return True
        if loops.many == chosen.loops and loops.effect in ("worse", "equal"):
            return True
        if loops.many != chosen.loops and evidence.counts(loops.effect, many, few):
            return True
    for fact in encoding_facts(evidence, chosen):
        mine = Candidate(arm=fact.arm, loops=fact.loops)
        other = Candidate(arm=fact.against, loops=fact.loops)
        if mine == chosen and fact.effect == "worse":
            return True
        if other == chosen and evidence.counts(fact.effect, mine, other):
            return True
    return False


def _untied_winner(evidence: Evidence, chosen: Candidate) -> tuple[str, float] | None:
    """Return the arm without a loop that is better by more than the margin, the smaller one first."""
    found = [
        (fact.arm, fact.parameters_ratio)
        for fact in untied_facts(evidence, chosen)
        if evidence.counts(fact.effect, Candidate(arm=fact.arm, loops=fact.loops), fact.against)
    ]
    return min(found, key=lambda pair: pair[1], default=None)
