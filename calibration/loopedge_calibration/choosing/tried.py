"""A candidate from its recipe to its verdict, and the choice among those that were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from loopedge.quantizer.budget_result import BudgetResult
from loopedge.quantizer.choice.result import Candidate, ChoiceResult
from loopedge.quantizer.choice.rule import Choice, Limits, choose
from loopedge.quantizer.recipe import Recipe
from loopedge.quantizer.timing import TimeRatio
from loopedge_calibration.choosing.settings import Setting
from loopedge_calibration.choosing.trials import Measured, Written

__all__ = ["Chosen", "Tried", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A candidate that was measured.

    Attributes:
        name: What people call it.
        setting: Its scheme and ranges.
        recipe: How the graph is rewritten.
        written: Its file.
        measured: What it does to the samples.
        whole: On all of them, not on a part.
        lifted: The linears and tables above the scheme, each with its level.
        mix_of: The candidate that has none of them.
        budget: What an accuracy budget lifted.
    """

    name: str
    setting: Setting
    recipe: Recipe
    written: Written
    measured: Measured
    whole: bool
    lifted: dict[str, str] = field(default_factory=dict)
    mix_of: str | None = None
    budget: BudgetResult | None = None

    def candidate(self, time: TimeRatio | None) -> Candidate:
        """Return it as the rule takes it."""
        own, table = self.measured, self.recipe.table
        return Candidate(
            name=self.name,
            scheme=self.setting.scheme,
            ranges=self.setting.granularity,
            method=self.setting.method,
            smoothing=None if table is None else bool(table.factors()),
            lifted=self.lifted,
            mix_of=self.mix_of,
            samples=own.samples,
            sqnr_db=own.sqnr_db,
            min_sqnr_db=self.written.min_sqnr_db,
            score=own.score,
            loss=own.loss,
            loss_error=own.loss_error,
            moved=own.moved,
            bytes=self.written.bytes,
            time_ratio=None if time is None else time.median,
            time_low=None if time is None else time.low,
            time_high=None if time is None else time.high,
            steady=time is None or time.steady,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The recipe that was chosen, and all that it was chosen among.

    Attributes:
        recipe: It.
        budget: What an accuracy budget lifted in it; None without.
        result: Among which it was chosen, and why.
        tried: The candidates.
        times: By their operators.
        limits: What they must hold.
        refused: Candidates that the check of the written file refused, each with the reason.
    """

    recipe: Recipe
    budget: BudgetResult | None
    result: ChoiceResult
    tried: Sequence[Tried]
    times: Mapping[str, TimeRatio]
    limits: Limits
    refused: Mapping[str, str] = field(default_factory=dict)

    def without_it(self, reason: str) -> "Chosen | None":
        """Return the choice among the others; None where there are none.

        Args:
            reason: Why the one that was chosen is refused.

        Raises:
            BudgetError: None of the others holds the limits.
        """
        refused = {**self.refused, self.result.chosen: reason}
        left = [item for item in self.tried if item.whole and item.name not in refused]
        if not left:
            return None
        found, choice = decide(left, self.times, self.limits)
        verdicts = {item.name: item.verdict for item in self.result.candidates}
        verdicts |= choice.verdicts | {name: f"refused: {why}" for name, why in refused.items()}
        return replace(
            self,
            recipe=found.recipe,
            budget=found.budget,
            refused=refused,
            result=replace(
                self.result,
                chosen=found.name,
                reason=choice.reason,
                candidates=[
                    replace(item, verdict=verdicts[item.name]) for item in self.result.candidates
                ],
            ),
        )


def decide(
    tried: Sequence[Tried], times: Mapping[str, TimeRatio], limits: Limits
) -> tuple[Tried, Choice]:
    """Choose among candidates that were measured on all samples.

    Raises:
        BudgetError: None holds the limits that the user named.
    """
    choice = choose(
        [item.candidate(times.get(item.written.operators)) for item in tried if item.whole], limits
    )
    return next(item for item in tried if item.name == choice.chosen.name), choice
