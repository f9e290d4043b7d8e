"""What a verdict stands on: table rows, the choice on validation, the claims on test, and how two models compare."""

from collections.abc import Sequence

from loopedge.study.judging.choice import decide
from loopedge.study.judging.claims import Baseline, Claims, claim
from loopedge.study.judging.margin import Margin
from loopedge.study.judging.statements import Candidate, Effect, effect_of
from loopedge.study.judging.statistics import Interval
from loopedge.study.judging.summary import Summary, in_common
from loopedge.study.options import UNLOOPED

__all__ = ["Evidence", "candidates_of"]


class Evidence:
    """The table rows of a pilot, what is chosen of them, and how they compare on the test split.

    Args:
        summary: Table rows by arm and loop count.
        higher_is_better: Of the metric.
        margin: The difference that does not matter.
        baseline: The strongest one; None where there is none.
        claims: Of all arms against it.
    """

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
        whole = [row for row in summary if row.is_whole and len(row.validation) == row.runs]
        known = in_common({row.candidate: row.validation for row in whole})
        judged = candidates_of([of for of, values in known.items() if values])
        self.validation = {(of.arm, of.loops): known[of] for of in judged}
        self.test = in_common({(row.arm, row.loops): row.test for row in whole if row.test})
        self.choice = decide(self.validation, margin=self.margin, higher_is_better=higher_is_better)
        zeros = dict.fromkeys((block for of in self.test.values() for block in of), 0.0)
        self.compared = claims or claim(self.test, zeros)

    def baseline_name(self) -> str | None:
        """Return the name of the strongest baseline."""
        return None if self.baseline is None else self.baseline.name

    def against_baseline(self, candidate: Candidate) -> Effect:
        """Return the effect of a candidate against the baseline; better where there is none."""
        if self.baseline is None or self.claims is None:
            return "better"
        return self.effect(self.claims.of(candidate))

    def all_lose(self) -> bool:
        """Return whether the baseline surely beats every candidate."""
        if self.baseline is None or self.claims is None:
            return False
        candidates = [Candidate(arm=arm, loops=loops) for arm, loops in self.validation]
        return all(self.effect(self.claims.of(one)) == "worse" for one in candidates)

    def effect(self, difference: Interval | None) -> Effect:
        """Return what a difference says."""
        return effect_of(difference, self.margin, higher_is_better=self.higher)

    def between(self, mine: Candidate, other: Candidate) -> Interval | None:
        """Return the difference of two models on the test split."""
        return None if self.compared is None else self.compared.between(mine, other)

    def gain(self, mine: Candidate, other: Candidate) -> float:
        """Return by how much one is better on the test split."""
        found = self.between(mine, other)
        if found is None:
            return 0.0
        return found.mean if self.higher else -found.mean

    def counts(self, effect: Effect, mine: Candidate, other: Candidate) -> bool:
        """Return whether one is surely better, and by more than the margin."""
        return effect == "better" and self.gain(mine, other) > self.margin


def candidates_of(models: Sequence[Candidate]) -> list[Candidate]:
    """Return those that may be recommended: with a loop, and of one loop count; elastic ones where there is no other."""
    looped = [one for one in models if one.arm not in UNLOOPED]
    return [one for one in looped if one.arm != "elastic"] or looped
