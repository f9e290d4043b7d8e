"""What a pilot says, and by which rule: a difference counts when its 95 % interval excludes zero."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loopedge.study.design import ARMS
from loopedge.study.statistics import LEAST_SEEDS, Interval, Spread, interval_of
from loopedge.study.summary import Summary
from loopedge.tasks.metrics import Metrics
from loopedge.units import ratio_text, size_text, time_text

__all__ = ["RULE", "Verdict", "judge", "spread_text"]

RULE = (
    "A difference counts when its 95 % interval over the seeds (paired by seed, Student's t) excludes "
    "zero. Recommended is the model with the fewest loops, and among those the plainest arm, that is "
    "not worse than the best one by a difference that counts."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict in sentences, the headline first.

    Args:
        headline: The one that decides.
        sentences: The others.
        recommended: ``arm`` and ``loops``; None where the data does not allow it.
        baseline: Name and value of the best baseline; None where there is none.
    """

    headline: str
    sentences: list[str]
    recommended: dict[str, Any] | None
    baseline: dict[str, Any] | None
    rule: str = RULE

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How a metric is told and compared."""

    metric: str
    higher_is_better: bool

    def is_better(self, difference: float) -> bool:
        return difference > 0 if self.higher_is_better else difference < 0

    def best(self, rows: Sequence[Summary]) -> Summary:
        sign = 1 if self.higher_is_better else -1
        return max(rows, key=lambda row: sign * (row.quality.mean if row.quality else 0))


def judge(
    summary: Sequence[Summary],
    baselines: Mapping[str, Metrics],
    metric: str,
    *,
    higher_is_better: bool,
) -> Verdict:
    """Return the verdict on the rows of a pilot.

    Args:
        summary: Rows by arm and loop count.
        baselines: Metrics of what needs no training, on the same test samples.
        metric: Which one decides.
        higher_is_better: Its direction.
    """
    scale = _Scale(metric=metric, higher_is_better=higher_is_better)
    rows = [row for row in summary if row.quality is not None and row.arm != "untied"]
    baseline = _best_baseline(baselines, scale)
    if not rows:
        return Verdict(
            headline="No run was finished: there is nothing to compare.",
            sentences=_stability(summary),
            recommended=None,
            baseline=baseline,
        )
    best = scale.best(rows)
    chosen = _recommend(rows, best)
    about_baseline, beaten = _against_baseline(best, baseline, scale)
    sentences = [
        *([_recommendation(chosen, best, scale)] if beaten else []),
        *_about_loops(rows, best, scale),
        *_about_timestep(rows, scale),
        *_about_untied(summary, best, scale),
        *_about_int8(chosen, scale),
        *_about_cost(chosen, rows),
        *_stability(summary),
    ]
    if len(best.quality.values if best.quality else []) < LEAST_SEEDS:
        about_baseline += f" No verdict: at least {LEAST_SEEDS} finished seeds are needed for one."
    return Verdict(
        headline=about_baseline,
        sentences=sentences,
        recommended={"arm": chosen.arm, "loops": chosen.loops} if chosen and beaten else None,
        baseline=baseline,
    )


def spread_text(spread: Spread | None) -> str:
    """Say ``12.1 +- 0.3``, or the single value."""
    if spread is None:
        return "-"
    return f"{spread.mean:.4g}" + (f" ± {spread.sd:.2g}" if spread.sd is not None else "")


def _best_baseline(baselines: Mapping[str, Metrics], scale: _Scale) -> dict[str, Any] | None:
    known = {
        name: told[scale.metric]
        for name, told in baselines.items()
        if told.get(scale.metric) is not None
    }
    if not known:
        return None
    choose = max if scale.higher_is_better else min
    name = choose(known, key=known.__getitem__)
    return {"name": name, "value": known[name]}


def _against_baseline(
    best: Summary, baseline: dict[str, Any] | None, scale: _Scale
) -> tuple[str, bool]:
    """Return the headline, and whether the best model is better than the baseline."""
    told = f"{_name(best)} reaches {scale.metric} {spread_text(best.quality)}"
    if baseline is None or best.quality is None:
        return f"Best: {told}.", True
    known = f"{baseline['name'].replace('_', ' ')} ({baseline['value']:.4g})"
    change = interval_of([value - baseline["value"] for value in best.quality.values])
    if change is None or not scale.is_better(change.mean):
        return f"No model beats the baseline {known}: {told}.", False
    if not change.excludes_zero:
        return f"The baseline {known} is beaten on average alone: {told}.", False
    return f"The baseline {known} is beaten: {told}.", True


def _recommend(rows: Sequence[Summary], best: Summary) -> Summary | None:
    """Return the cheapest row that is not worse than the best by a difference that counts."""
    if best.quality is None or len(best.quality.values) < LEAST_SEEDS:
        return None
    order = list(ARMS)
    for row in sorted(rows, key=lambda row: (row.loops, order.index(row.arm))):
        if row is best:
            return row
        change = row.against_best
        if change is not None and change.low is not None and not change.excludes_zero:
            return row
    return best


def _recommendation(chosen: Summary | None, best: Summary, scale: _Scale) -> str:
    if chosen is None:
        return "Nothing is recommended on so few seeds."
    if chosen is best:
        return f"Recommended: {_name(best)}, the best."
    return (
        f"Recommended: {_name(chosen)} ({scale.metric} {spread_text(chosen.quality)}), "
        f"not worse than {_name(best)} beyond the noise of the seeds."
    )


def _about_loops(rows: Sequence[Summary], best: Summary, scale: _Scale) -> list[str]:
    """Say for the best arm what the most loops do against the fewest."""
    mine = [row for row in rows if row.arm == best.arm]
    first, last = mine[0], mine[-1]
    if first is last or last.against_fewest is None:
        return []
    what = _effect("More loops", last.against_fewest, scale)
    return [
        f"{what}: {scale.metric} {spread_text(last.quality)} at {last.loops} loops against "
        f"{spread_text(first.quality)} at {first.loops} ({best.arm}; "
        f"{_interval_text(last.against_fewest)})."
    ]


def _about_timestep(rows: Sequence[Summary], scale: _Scale) -> list[str]:
    """Say what a timestep encoding does at the most loops, against both other arms."""
    sentences = []
    for arm, label in (("timestep", "Timestep encoding"), ("constant", "Constant gates")):
        mine = [row for row in rows if row.arm == arm and row.against_looped is not None]
        if mine and mine[-1].against_looped is not None:
            row, change = mine[-1], mine[-1].against_looped
            sentences.append(
                f"{_effect(label, change, scale)} against the plain loop at {row.loops} loops "
                f"({_interval_text(change)})."
            )
    return sentences


def _about_untied(summary: Sequence[Summary], best: Summary, scale: _Scale) -> list[str]:
    """Say what as many layers with weights of their own reach."""
    others = [row for row in summary if row.arm == "untied" and row.quality is not None]
    same = next((row for row in others if row.loops == best.loops), None)
    if same is None or not same.parameters or not best.parameters:
        return []
    return [
        f"{same.loops} untied layers reach {scale.metric} {spread_text(same.quality)} with "
        f"{same.parameters / best.parameters:.1f} times the parameters."
    ]


def _about_int8(chosen: Summary | None, scale: _Scale) -> list[str]:
    if chosen is None or chosen.int8_change is None:
        return []
    change = chosen.int8_change
    told = "makes a difference that counts" if change.excludes_zero else "makes none that counts"
    return [f"int8 {told} ({scale.metric}: {_interval_text(change)})."]


def _about_cost(chosen: Summary | None, rows: Sequence[Summary]) -> list[str]:
    """Say what the recommended model takes, and what weight tying saves it."""
    if chosen is None or "float" not in chosen.cost:
        return []
    own = chosen.cost["float"]
    told = (
        f"{_name(chosen)} takes {size_text(own['file_bytes'])} in the file and "
        f"{time_text(own['latency_ms']['p50'])} a sample"
    )
    fewest = next((row for row in rows if row.arm == chosen.arm and "float" in row.cost), chosen)
    if fewest is not chosen:
        ratio = own["time_ratio"] / fewest.cost["float"]["time_ratio"]
        told += f", {ratio_text(ratio)} the time of {fewest.loops}"
    if "int8" in chosen.cost:
        lower = chosen.cost["int8"]
        told += (
            f"; int8 {size_text(lower['file_bytes'])} and {time_text(lower['latency_ms']['p50'])}"
        )
    if "untied" in chosen.cost:
        told += (
            f"; without tying the file would be {size_text(chosen.cost['untied']['file_bytes'])}"
        )
    return [f"{told}."]


def _stability(summary: Sequence[Summary]) -> list[str]:
    diverged = [(row, row.diverged) for row in summary if row.diverged]
    failed = [(row, row.failed) for row in summary if row.failed]
    runs = sum(row.runs for row in summary)
    if not diverged and not failed:
        return [f"None of {runs} runs diverged."] if runs else []
    sentences = []
    for what, rows in (("diverged", diverged), ("failed", failed)):
        if rows:
            where = ", ".join(f"{_name(row)} {count}" for row, count in rows)
            sentences.append(f"{sum(count for _, count in rows)} of {runs} runs {what}: {where}.")
    return sentences


def _effect(what: str, change: Interval, scale: _Scale) -> str:
    if change.low is None:
        return f"{what}: no verdict on fewer than {LEAST_SEEDS} seeds"
    if not change.excludes_zero:
        return f"{what}: no difference beyond the noise of the seeds"
    return f"{what} helped" if scale.is_better(change.mean) else f"{what} made it worse"


def _interval_text(change: Interval) -> str:
    if change.low is None or change.high is None:
        return f"difference {change.mean:+.3g}"
    return f"difference {change.mean:+.3g}, 95 % interval {change.low:+.3g} to {change.high:+.3g}"


def _name(row: Summary) -> str:
    return f"{row.arm} with {row.loops} loop{'s' if row.loops > 1 else ''}"
