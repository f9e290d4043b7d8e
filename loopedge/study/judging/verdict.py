"""What a pilot says, and by which rule.

    judge(summary, metric=..., higher_is_better=..., margin=..., baseline=..., claims=...) -> Verdict

It stands on `Summary` rows (`summarise`), the `Margin`, the strongest `Baseline` and the `Claims` against it; all four are in
results.json, so that a page can be made again, with another margin too. `loopedge.study.judging.judgement.judge_runs` makes
them of the runs. ``further`` takes statements of others: convergence, equivalence, requirements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loopedge.study.cost import is_busy
from loopedge.study.judging.choice import Choice, decide, honest_quality
from loopedge.study.judging.claims import Baseline, Claims, claim
from loopedge.study.judging.margin import Margin
from loopedge.study.judging.next_step import Plan, next_step
from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Candidate,
    Chosen,
    Cost,
    Decision,
    Effect,
    Encoding,
    MoreLoops,
    Outcome,
    Rounding,
    Stability,
    Statement,
    Untied,
    Why,
    effect_of,
)
from loopedge.study.judging.statistics import LEAST_SEEDS, Interval
from loopedge.study.judging.summary import Summary
from loopedge.study.options import UNLOOPED
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
NEVER_CHOSEN = ("elastic", *UNLOOPED)
SAME_SIZE = 1.5
"""A network without a loop is no larger up to so many times the parameters."""
MEMORY = "rss_peak_bytes"


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
    judged = _Judge(summary, higher_is_better, margin, baseline, claims)
    decision = judged.decision()
    statements: list[Statement] = [
        decision,
        *judged.facts(decision),
        *further,
    ]
    step = judged.step(decision, plan or Plan())
    if step is not None:
        statements.append(step)
    deviation = judged.choice.deviation
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
        choice=judged.choice,
        claims=claims,
        margin=margin,
        recommended=None if chosen is None else {"arm": chosen.arm, "loops": chosen.loops},
        baseline=None
        if baseline is None
        else {"name": baseline.name, "about": baseline.about, "value": baseline.value},
        names=names,
    )


class _Judge:
    """The table rows of a pilot, and what can be said of them."""

    def __init__(
        self,
        summary: Sequence[Summary],
        higher_is_better: bool,
        margin: Margin,
        baseline: Baseline | None,
        claims: Claims | None,
    ) -> None:
        self.summary, self.higher, self.margin = summary, higher_is_better, margin.value
        self.baseline, self.claims = baseline, claims
        self.rows = {row.candidate: row for row in summary if row.quality is not None}
        whole = {row.candidate: row for row in summary if row.is_whole and row.test}
        self.validation = {
            (of.arm, of.loops): row.validation
            for of, row in whole.items()
            if of.arm not in NEVER_CHOSEN
        }
        self.test = {(of.arm, of.loops): row.test for of, row in whole.items()}
        self.choice = decide(self.validation, margin=self.margin, higher_is_better=higher_is_better)
        zeros = dict.fromkeys((block for of in self.test.values() for block in of), 0.0)
        self.compared = claims or claim(self.test, zeros)

    def decision(self) -> Decision:
        """Return the outcome and what it rests on."""
        choice = self.choice
        if choice.best is None:
            return self._decided("undecided", "nothing-finished")
        if choice.blocks < LEAST_SEEDS:
            return self._decided("undecided", "few-seeds")
        if self._all_lose():
            return self._decided("no", "baseline", winner=self._baseline_name())
        if choice.chosen is None:
            return self._decided("undecided", "seeds", fewest=choice.count, most=choice.best.loops)
        chosen, effect = choice.chosen, self._against_baseline(choice.chosen)
        if effect == "worse":
            return self._decided("no", "baseline", winner=self._baseline_name())
        if effect == "equal":
            return self._decided("no", "baseline-as-good", winner=self._baseline_name())
        if self._splits_disagree(chosen):
            return self._decided("undecided", "splits")
        winner = self._untied_winner(chosen)
        if winner is not None and winner[1] <= SAME_SIZE:
            return self._decided("no", "untied", winner=winner[0])
        if effect == "undecided" and chosen.loops > 1:
            of_period = self.claims is not None and self.claims.is_of_period
            return self._decided("undecided", "period" if of_period else "seeds")
        return self._decided(
            "yes" if chosen.loops > 1 else "no",
            "loops" if chosen.loops > 1 else "one-loop",
            chosen=chosen if effect == "better" else None,
            winner=None if winner is None else winner[0],
        )

    def facts(self, decision: Decision) -> list[Statement]:
        """Return what else can be said, in the order in which it is told."""
        subject = self.subject(decision)
        if subject is None:
            return [self._stability()]
        facts = [
            self._baseline_fact(subject),
            self._chosen_fact(decision),
            self._loops_fact(subject),
            *self._encoding_facts(subject),
            *self._untied_facts(subject),
            self._alternative(subject),
            self._rounding(subject),
            self._cost(subject),
            self._stability(),
        ]
        return [fact for fact in facts if fact is not None]

    def subject(self, decision: Decision) -> Candidate | None:
        """Return the candidate that the facts are about: what is chosen, or else the best."""
        return decision.chosen or self.choice.chosen or self.choice.best

    def step(self, decision: Decision, plan: Plan) -> Statement | None:
        """Return what to do next."""
        blocks = {block for of in self.validation.values() for block in of}
        return next_step(
            decision,
            self.choice,
            self.validation,
            self.claims,
            subject=self.subject(decision),
            margin=self.margin,
            higher_is_better=self.higher,
            seeds=max(1, len({block.partition("-")[0] for block in blocks})),
            plan=plan,
        )

    def _decided(
        self,
        outcome: Outcome,
        why: Why,
        *,
        chosen: Candidate | None = None,
        fewest: int | None = None,
        most: int | None = None,
        winner: str | None = None,
    ) -> Decision:
        choice = self.choice
        return Decision(
            outcome=outcome,
            why=why,
            blocks=choice.blocks,
            chosen=chosen,
            best=choice.best,
            fewest=fewest,
            most=most,
            winner=winner,
            sure=None if choice.chosen is None else choice.sure(choice.chosen),
        )

    def _baseline_name(self) -> str | None:
        return None if self.baseline is None else self.baseline.name

    def _against_baseline(self, candidate: Candidate) -> Effect:
        """Return the effect of a candidate against the baseline; better where there is none."""
        if self.baseline is None or self.claims is None:
            return "better"
        return self._effect(self.claims.of(candidate))

    def _all_lose(self) -> bool:
        if self.baseline is None or self.claims is None:
            return False
        candidates = [Candidate(arm=arm, loops=loops) for arm, loops in self.validation]
        return all(self._effect(self.claims.of(one)) == "worse" for one in candidates)

    def _effect(self, difference: Interval | None) -> Effect:
        return effect_of(difference, self.margin, higher_is_better=self.higher)

    def _between(self, mine: Candidate, other: Candidate) -> Interval | None:
        return None if self.compared is None else self.compared.between(mine, other)

    def _gain(self, mine: Candidate, other: Candidate) -> float:
        """Return by how much one is better on the test split."""
        found = self._between(mine, other)
        if found is None:
            return 0.0
        return found.mean if self.higher else -found.mean

    def _splits_disagree(self, chosen: Candidate) -> bool:
        """Return whether the test split speaks against what validation chose, on what is told of it.

        It does where more loops are chosen that are not even better on average; where fewer are chosen and more are better
        by more than the margin, and surely; where an encoding is chosen or left and the test split surely says otherwise.
        """
        loops = self._loops_fact(chosen)
        if loops is not None:
            many = Candidate(arm=chosen.arm, loops=loops.many)
            few = Candidate(arm=chosen.arm, loops=loops.few)
            if loops.many == chosen.loops and self._gain(many, few) <= 0:
                return True
            if loops.many == chosen.loops and loops.effect in ("worse", "equal"):
                return True
            if loops.many != chosen.loops and self._counts(loops.effect, many, few):
                return True
        for fact in self._encoding_facts(chosen):
            mine = Candidate(arm=fact.arm, loops=fact.loops)
            other = Candidate(arm=fact.against, loops=fact.loops)
            if mine == chosen and fact.effect == "worse":
                return True
            if other == chosen and self._counts(fact.effect, mine, other):
                return True
        return False

    def _counts(self, effect: Effect, mine: Candidate, other: Candidate) -> bool:
        return effect == "better" and self._gain(mine, other) > self.margin

    def _untied_winner(self, chosen: Candidate) -> tuple[str, float] | None:
        """Return the arm without a loop that is better by more than the margin, the smaller one first."""
        found = [
            (fact.arm, fact.parameters_ratio)
            for fact in self._untied_facts(chosen)
            if self._counts(fact.effect, Candidate(arm=fact.arm, loops=fact.loops), fact.against)
        ]
        return min(found, key=lambda pair: pair[1], default=None)

    def _baseline_fact(self, subject: Candidate) -> AgainstBaseline | None:
        row, baseline = self.rows[subject], self.baseline
        if baseline is None or row.quality is None:
            return None
        claims = self.claims
        difference = None if claims is None else claims.of(subject)
        return AgainstBaseline(
            candidate=subject,
            baseline=baseline.name,
            about=baseline.about,
            value=baseline.value,
            quality=row.quality,
            difference=difference,
            effect=self._effect(difference),
            over="seeds" if claims is None else claims.over,
            samples=None if claims is None else claims.samples,
            visible=None if claims is None else claims.visible,
            seasonal=_seasonal(row, baseline),
        )

    def _chosen_fact(self, decision: Decision) -> Chosen | None:
        chosen = decision.chosen
        if chosen is None:
            return None
        quality = self.rows[chosen].quality
        if quality is None:
            return None
        return Chosen(
            candidate=chosen,
            sure=self.choice.sure(chosen),
            quality=quality,
            honest=honest_quality(
                self.validation, self.test, margin=self.margin, higher_is_better=self.higher
            ),
        )

    def _loops_fact(self, subject: Candidate) -> MoreLoops | None:
        """Say what more loops do in the arm: those that are chosen, or else those that are best on validation."""
        counts = sorted(loops for arm, loops in self.validation if arm == subject.arm)
        if len(counts) < 2:
            return None
        few, sign = counts[0], 1 if self.higher else -1
        many = subject.loops
        if many == few:
            many = max(
                counts[1:], key=lambda loops: sign * _mean(self.validation[subject.arm, loops])
            )
        one, two = (Candidate(arm=subject.arm, loops=loops) for loops in (few, many))
        first, last = self.rows[one].quality, self.rows[two].quality
        if first is None or last is None:
            return None
        difference = self._between(two, one)
        return MoreLoops(
            arm=subject.arm,
            few=few,
            many=many,
            few_quality=first,
            many_quality=last,
            difference=difference,
            effect=self._effect(difference),
        )

    def _encoding_facts(self, subject: Candidate) -> list[Encoding]:
        """Say what arms do at the subject's count: timestep encoding against its fair control first."""
        pairs = (("timestep", "constant"), ("timestep", "looped"), ("constant", "looped"))
        loops = subject.loops
        found = []
        for arm, against in pairs:
            if (arm, loops) not in self.validation or (against, loops) not in self.validation:
                continue
            mine, other = (Candidate(arm=name, loops=loops) for name in (arm, against))
            difference = self._between(mine, other)
            found.append(
                Encoding(
                    arm=arm,
                    against=against,
                    loops=loops,
                    difference=difference,
                    effect=self._effect(difference),
                )
            )
        return found

    def _untied_facts(self, subject: Candidate) -> list[Untied]:
        """Say what networks without a loop reach, against the subject."""
        mine = self.rows[subject]
        found = []
        for row in self.summary:
            if row.arm not in UNLOOPED or row.quality is None or row.candidate == subject:
                continue
            difference = self._between(row.candidate, subject)
            found.append(
                Untied(
                    arm=row.arm,
                    loops=row.loops,
                    against=subject,
                    quality=row.quality,
                    parameters_ratio=(row.parameters or 0) / (mine.parameters or 1),
                    difference=difference,
                    effect=self._effect(difference),
                )
            )
        return found

    def _alternative(self, subject: Candidate) -> Alternative | None:
        """Name the elastic model where it is surely no worse than the subject by more than the margin."""
        rows = [row for row in self.summary if row.arm == "elastic" and row.quality is not None]
        found = []
        for row in rows:
            difference = self._between(row.candidate, subject)
            effect = self._effect(difference)
            gain = self._gain(row.candidate, subject)
            if effect in ("equal", "better") or (effect == "undecided" and gain >= -self.margin):
                found.append((gain, row.candidate, difference, effect))
        if not found:
            return None
        _, candidate, difference, effect = max(found, key=lambda one: one[0])
        return Alternative(
            candidate=candidate, against=subject, difference=difference, effect=effect
        )

    def _rounding(self, subject: Candidate) -> Rounding | None:
        row = self.rows[subject]
        change = row.int8_change
        if change is None:
            return None
        share = abs(change.mean / row.quality.mean) if row.quality and row.quality.mean else 0.0
        ratio = None
        if "int8" in row.cost and "float" in row.cost:
            ratio = row.cost["int8"]["time_ratio"] / row.cost["float"]["time_ratio"]
        return Rounding(
            candidate=subject,
            change=change,
            share=share,
            effect=self._effect(change),
            time_ratio=ratio,
        )

    def _cost(self, subject: Candidate) -> Cost | None:
        row = self.rows[subject]
        if "float" not in row.cost:
            return None
        own, lower = row.cost["float"], row.cost.get("int8")
        same = [of for of in self.rows.values() if of.arm == row.arm and "float" in of.cost]
        fewest = min(same, key=lambda of: of.loops)
        ratio = own["time_ratio"] / fewest.cost["float"]["time_ratio"]
        untied = row.cost.get("untied")
        return Cost(
            candidate=subject,
            file_bytes=own["file_bytes"],
            memory_bytes=own.get(MEMORY) or 0,
            seconds=own["latency_ms"]["p50"] / 1000,
            int8_bytes=None if lower is None else lower["file_bytes"],
            int8_seconds=None if lower is None else lower["latency_ms"]["p50"] / 1000,
            untied_bytes=None if untied is None else untied["file_bytes"],
            fewest=None if fewest is row else fewest.loops,
            time_ratio=None if fewest is row else ratio,
            busy=is_busy(row.cost),
        )

    def _stability(self) -> Stability:
        def counted(field: Literal["diverged", "failed", "int8_failed"]) -> dict[str, int]:
            return {
                f"{row.arm}-r{row.loops}": count
                for row in self.summary
                if (count := getattr(row, field))
            }

        return Stability(
            runs=sum(row.runs for row in self.summary),
            diverged=counted("diverged"),
            failed=counted("failed"),
            no_int8=counted("int8_failed"),
        )


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _seasonal(row: Summary, baseline: Baseline) -> tuple[float | None, float | None] | None:
    """Return MASE of a model and of the baseline."""
    if "mase" not in row.scores and "mase" not in baseline.scores:
        return None
    mine = row.scores.get("mase")
    return (None if mine is None else mine.mean), baseline.scores.get("mase")
