"""What a pilot says, and by which rule: a difference counts when its 95 % interval excludes zero."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as field_of
from typing import Any

from loopedge.study.cost import is_busy
from loopedge.study.judging.statements import Statement
from loopedge.study.judging.statistics import LEAST_SEEDS, Interval, OverSeeds, paired
from loopedge.study.judging.summary import Summary, Values
from loopedge.study.options import ARMS
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["RULE", "Verdict", "judge", "quality_text"]

RULE = (
    "A difference counts when its 95 % interval over the seeds (paired by seed, Student's t) excludes "
    "zero. The best model is chosen on the validation split, of those whose seeds all finished; the "
    "figures shown are of the test split. Recommended is the one with the fewest loops, and among those "
    "the plainest arm, that is not worse than the best on the validation split by a difference that "
    "counts, and that beats the best baseline on the test split by one that does. Many comparisons are "
    "made: expect one in twenty to count by chance."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict in sentences, the headline first.

    Args:
        headline: The one that decides.
        sentences: The others.
        recommended: ``arm`` and ``loops``; None where the data does not allow it.
        baseline: ``name`` and mean ``value`` of the best baseline; None where there is none.
    """

    headline: str
    sentences: list[str]
    recommended: dict[str, Any] | None
    baseline: dict[str, Any] | None
    rule: str = RULE
    statements: list[Statement] = field_of(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"statements": [one.to_json() for one in self.statements]}


def judge(
    summary: Sequence[Summary],
    baseline: tuple[str, Values] | None,
    metric: str,
    *,
    higher_is_better: bool,
) -> Verdict:
    """Return the verdict on the table rows of a pilot.

    Args:
        summary: Table rows by arm and loop count.
        baseline: Name and metric by seed of the best baseline.
        metric: Which one decides.
        higher_is_better: Its direction.
    """
    return _Judge(summary, baseline, metric, higher_is_better=higher_is_better).verdict()


def quality_text(quality: OverSeeds | None) -> str:
    """Say ``12.1 ± 0.3``, or the single value."""
    if quality is None:
        return "-"
    return f"{quality.mean:.4g}" + (f" ± {quality.sd:.2g}" if quality.sd is not None else "")


class _Judge:
    """The table rows of a pilot, and what can be said of them."""

    def __init__(
        self,
        summary: Sequence[Summary],
        baseline: tuple[str, Values] | None,
        metric: str,
        *,
        higher_is_better: bool,
    ) -> None:
        self.summary, self.metric, self.higher = summary, metric, higher_is_better
        self.baseline = baseline
        self.tied = [row for row in summary if row.arm != "untied" and row.quality is not None]
        self.whole = [row for row in self.tied if row.is_whole]

    def verdict(self) -> Verdict:
        known = self._known_baseline()
        if not self.tied:
            return Verdict(
                headline="No run of a looped model was finished: there is nothing to compare.",
                sentences=self._stability(),
                recommended=None,
                baseline=known,
            )
        best = self._best(self.whole or self.tied)
        chosen = self._recommended(best)
        subject = chosen or best
        return Verdict(
            headline=self._headline(best),
            sentences=[
                *self._recommendation(chosen, best),
                *self._about_loops(best),
                *self._about_gates("timestep", "Timestep encoding"),
                *self._about_gates("constant", "Constant gates"),
                *self._about_untied(best),
                *self._about_int8(subject),
                *self._about_cost(subject),
                *self._stability(),
            ],
            recommended=None if chosen is None else {"arm": chosen.arm, "loops": chosen.loops},
            baseline=known,
        )

    def _better(self, difference: float) -> bool:
        return difference > 0 if self.higher else difference < 0

    def _known_baseline(self) -> dict[str, Any] | None:
        if self.baseline is None:
            return None
        name, values = self.baseline
        return {"name": name, "value": sum(values.values()) / len(values)}

    def _best(self, rows: Sequence[Summary]) -> Summary:
        sign = 1 if self.higher else -1

        def merit(row: Summary) -> float:
            values = list(row.validation.values()) or list(row.test.values())
            return sign * sum(values) / len(values)

        return max(rows, key=merit)

    def _beats_baseline(self, row: Summary) -> bool:
        if self.baseline is None:
            return True
        change = row.against_baseline
        return change is not None and change.excludes_zero and self._better(change.mean)

    def _recommended(self, best: Summary) -> Summary | None:
        """Return the cheapest row that the rule allows; None where there is none."""
        order = list(ARMS)
        for row in sorted(self.whole, key=lambda row: (row.loops, order.index(row.arm))):
            if len(row.test) < LEAST_SEEDS or not self._beats_baseline(row):
                continue
            change = paired(row.validation, best.validation)
            as_good = change is not None and change.low is not None and not change.excludes_zero
            if row is best or as_good:
                return row
        return None

    def _headline(self, best: Summary) -> str:
        reached = f"{_name(best)} reaches {self.metric} {quality_text(best.quality)}"
        reached += _incomplete(best)
        known, change = self._known_baseline(), best.against_baseline
        few = len(best.test) < LEAST_SEEDS
        ending = f" No verdict: at least {LEAST_SEEDS} seeds are needed for one." if few else ""
        if known is None or change is None:
            return f"Best: {reached}.{ending}"
        against = f"{known['name'].replace('_', ' ')} ({known['value']:.4g})"
        if not self._better(change.mean):
            return f"The baseline {against} is not beaten: {reached}.{ending}"
        if not change.excludes_zero:
            return f"The baseline {against} is beaten on average alone: {reached}.{ending}"
        return f"The baseline {against} is beaten: {reached}.{ending}"

    def _recommendation(self, chosen: Summary | None, best: Summary) -> list[str]:
        if chosen is None:
            return ["Nothing is recommended."]
        if chosen is best:
            return [f"Recommended: {_name(best)}, the best."]
        return [
            f"Recommended: {_name(chosen)} ({self.metric} {quality_text(chosen.quality)}), not worse "
            f"than {_name(best)} beyond the noise of the seeds."
        ]

    def _about_loops(self, best: Summary) -> list[str]:
        """Say what the best count of the best arm does against the fewest, and what more do."""
        mine = [row for row in self.tied if row.arm == best.arm]
        first, last = mine[0], mine[-1]
        if first is last:
            return []
        top = best if best is not first else last
        change = paired(top.test, first.test)
        sentences = [
            f"{self._effect('More loops', change)}: {self.metric} {quality_text(top.quality)} at "
            f"{_loops(top)} against {quality_text(first.quality)} at {_loops(first)} "
            f"({best.arm}; {_interval_text(change)})."
        ]
        beyond = paired(last.test, best.test) if best not in (first, last) else None
        if beyond is not None and beyond.excludes_zero and not self._better(beyond.mean):
            sentences.append(
                f"Past {_loops(best)} it gets worse: {quality_text(last.quality)} at {_loops(last)} "
                f"({_interval_text(beyond)})."
            )
        return sentences

    def _about_gates(self, arm: str, label: str) -> list[str]:
        """Say what an arm does at the most loops: timestep encoding against its fair control."""
        rows = [row for row in self.tied if row.arm == arm]
        if not rows:
            return []
        row = rows[-1]
        against = [("the plain loop", row.against_looped)]
        if arm == "timestep":
            against.insert(0, ("constant gates, its fair control,", row.against_constant))
        return [
            f"{self._effect(label, change)} against {name} at {_loops(row)} ({_interval_text(change)})."
            for name, change in against
            if change is not None
        ]

    def _about_untied(self, best: Summary) -> list[str]:
        """Say what as many layers with weights of their own reach."""
        same = [
            row
            for row in self.summary
            if row.arm == "untied" and row.quality is not None and row.loops == best.loops
        ]
        if not same:
            return []
        row, change = same[0], paired(same[0].test, best.test)
        more = (row.parameters or 0) / (best.parameters or 1)
        return [
            f"{row.loops} untied layers reach {self.metric} {quality_text(row.quality)} with "
            f"{more:.1f} times the parameters of {_name(best)} "
            f"({_interval_text(change)})."
        ]

    def _about_int8(self, row: Summary) -> list[str]:
        change = row.int8_change
        if change is None:
            return []
        what = self._effect("int8", change).replace("helped", "is better")
        share = abs(change.mean / row.quality.mean) if row.quality and row.quality.mean else 0.0
        return [f"{_name(row)}, {what} ({self.metric}: {_interval_text(change)}; {share:.1%})."]

    def _about_cost(self, row: Summary) -> list[str]:
        """Say what a model takes, and what weight tying saves it."""
        if "float" not in row.cost:
            return []
        own = row.cost["float"]
        taken = (
            f"{_name(row)} takes {size_text(own['file_bytes'])} in the file and "
            f"{time_text(own['latency_ms']['p50'])} a sample"
        )
        if is_busy(row.cost):
            taken += " on a machine that was busy"
        fewest = next((r for r in self.tied if r.arm == row.arm and "float" in r.cost), row)
        if fewest is not row:
            ratio = own["time_ratio"] / fewest.cost["float"]["time_ratio"]
            taken += f", {ratio_text(ratio)} the time of {_loops(fewest)}"
        if "int8" in row.cost:
            lower = row.cost["int8"]
            taken += (
                f"; int8 {size_text(lower['file_bytes'])} and "
                f"{time_text(lower['latency_ms']['p50'])}"
            )
        if "untied" in row.cost:
            taken += (
                f"; without tying the file would be {size_text(row.cost['untied']['file_bytes'])}"
            )
        return [f"{taken}."]

    def _stability(self) -> list[str]:
        runs = sum(row.runs for row in self.summary)
        sentences = []
        for what, field in (
            ("diverged", "diverged"),
            ("failed", "failed"),
            ("have no int8 model", "int8_failed"),
        ):
            rows = [(row, getattr(row, field)) for row in self.summary if getattr(row, field)]
            if rows:
                where = ", ".join(f"{_name(row)} {count}" for row, count in rows)
                sentences.append(f"{sum(n for _, n in rows)} of {runs} runs {what}: {where}.")
        if runs and not any(row.diverged for row in self.summary):
            sentences.append(f"None of {runs} runs diverged.")
        return sentences

    def _effect(self, what: str, change: Interval | None) -> str:
        if change is None or change.low is None:
            return f"{what}: no verdict on fewer than {LEAST_SEEDS} seeds"
        if not change.excludes_zero:
            return f"{what}: no difference beyond the noise of the seeds"
        return f"{what} helped" if self._better(change.mean) else f"{what} made it worse"


def _incomplete(row: Summary) -> str:
    """Say which of a row's runs its figures leave out."""
    if row.is_whole:
        return ""
    lost = [
        f"{count} {what}"
        for count, what in ((row.diverged, "diverged"), (row.failed, "failed"))
        if count
    ]
    return f" in {len(row.test)} of {row.runs} runs ({', '.join(lost)})"


def _interval_text(change: Interval | None) -> str:
    if change is None:
        return "no seed in common"
    if change.low is None or change.high is None:
        return f"difference {change.mean:+.3g}"
    return f"difference {change.mean:+.3g}, 95 % interval {change.low:+.3g} to {change.high:+.3g}"


def _loops(row: Summary) -> str:
    return f"{row.loops} loop{'s' if row.loops > 1 else ''}"


def _name(row: Summary) -> str:
    return f"{row.arm} with {_loops(row)}" if row.arm != "untied" else f"{row.loops} untied layers"
