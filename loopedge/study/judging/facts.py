"""What can be said of the runs of a pilot beside the decision, one function for each kind of statement."""

from collections.abc import Mapping, Sequence
from typing import Literal

from loopedge.study.cost import is_busy
from loopedge.study.judging.choice import honest_quality
from loopedge.study.judging.claims import Baseline
from loopedge.study.judging.evidence import Evidence
from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Candidate,
    Chosen,
    Cost,
    Decision,
    Encoding,
    MoreLoops,
    Rounding,
    Stability,
    Statement,
    Untied,
)
from loopedge.study.judging.summary import Summary
from loopedge.study.options import UNLOOPED

__all__ = ["encoding_facts", "facts_of", "loops_fact", "untied_facts"]

MEMORY = "rss_peak_bytes"


def facts_of(evidence: Evidence, decision: Decision, subject: Candidate | None) -> list[Statement]:
    """Return what can be said beside the decision, in the order in which it is shown.

    Args:
        evidence: Of the pilot.
        decision: Its first statement.
        subject: The model that the facts are about; None where no model finished.
    """
    if subject is None:
        return [stability_fact(evidence.summary)]
    facts = [
        baseline_fact(evidence, subject),
        chosen_fact(evidence, decision),
        loops_fact(evidence, subject),
        *encoding_facts(evidence, subject),
        *untied_facts(evidence, subject),
        alternative_fact(evidence, subject),
        rounding_fact(evidence, subject),
        cost_fact(evidence, subject),
        stability_fact(evidence.summary),
    ]
    return [fact for fact in facts if fact is not None]


def baseline_fact(evidence: Evidence, subject: Candidate) -> AgainstBaseline | None:
    row, baseline = evidence.rows[subject], evidence.baseline
    if baseline is None or row.quality is None:
        return None
    claims = evidence.claims
    difference = None if claims is None else claims.of(subject)
    return AgainstBaseline(
        candidate=subject,
        baseline=baseline.name,
        about=baseline.about,
        value=baseline.value,
        quality=row.quality,
        difference=difference,
        effect=evidence.effect(difference),
        over="seeds" if claims is None else claims.over,
        samples=None if claims is None else claims.samples,
        visible=None if claims is None else claims.visible,
        seasonal=_seasonal(row, baseline),
        ahead=(row.quality.mean > baseline.value) == evidence.higher,
    )


def chosen_fact(evidence: Evidence, decision: Decision) -> Chosen | None:
    chosen = decision.chosen
    if chosen is None:
        return None
    quality = evidence.rows[chosen].quality
    if quality is None:
        return None
    return Chosen(
        candidate=chosen,
        sure=evidence.choice.sure(chosen),
        quality=quality,
        honest=honest_quality(
            evidence.validation,
            evidence.test,
            margin=evidence.margin,
            higher_is_better=evidence.higher,
        ),
    )


def loops_fact(evidence: Evidence, subject: Candidate) -> MoreLoops | None:
    """Say what more loops do in the arm: those that are chosen, or else those that are best on validation."""
    counts = sorted(loops for arm, loops in evidence.validation if arm == subject.arm)
    if len(counts) < 2:
        return None
    few, sign = counts[0], 1 if evidence.higher else -1
    many = subject.loops
    if many == few:
        many = max(
            counts[1:], key=lambda loops: sign * _mean(evidence.validation[subject.arm, loops])
        )
    one, two = (Candidate(arm=subject.arm, loops=loops) for loops in (few, many))
    first, last = evidence.rows[one].quality, evidence.rows[two].quality
    if first is None or last is None:
        return None
    difference = evidence.between(two, one)
    return MoreLoops(
        arm=subject.arm,
        few=few,
        many=many,
        few_quality=first,
        many_quality=last,
        difference=difference,
        effect=evidence.effect(difference),
    )


def encoding_facts(evidence: Evidence, subject: Candidate) -> list[Encoding]:
    """Say what arms do at the subject's count: timestep encoding against its fair control first."""
    pairs = (("timestep", "constant"), ("timestep", "looped"), ("constant", "looped"))
    loops = subject.loops
    found = []
    for arm, against in pairs:
        if (arm, loops) not in evidence.validation or (against, loops) not in evidence.validation:
            continue
        mine, other = (Candidate(arm=name, loops=loops) for name in (arm, against))
        difference = evidence.between(mine, other)
        found.append(
            Encoding(
                arm=arm,
                against=against,
                loops=loops,
                difference=difference,
                effect=evidence.effect(difference),
            )
        )
    return found


def untied_facts(evidence: Evidence, subject: Candidate) -> list[Untied]:
    """Say what networks without a loop reach, against the subject."""
    mine = evidence.rows[subject]
    found = []
    for row in evidence.summary:
        if row.arm not in UNLOOPED or row.quality is None or row.candidate == subject:
            continue
        difference = evidence.between(row.candidate, subject)
        found.append(
            Untied(
                arm=row.arm,
                loops=row.loops,
                against=subject,
                quality=row.quality,
                parameters_ratio=(row.parameters or 0) / (mine.parameters or 1),
                difference=difference,
                effect=evidence.effect(difference),
            )
        )
    return found


def alternative_fact(evidence: Evidence, subject: Candidate) -> Alternative | None:
    """Name the elastic model where it is surely no worse than the subject by more than the margin."""
    rows = [row for row in evidence.summary if row.arm == "elastic" and row.quality is not None]
    found = []
    for row in rows:
        difference = evidence.between(row.candidate, subject)
        effect = evidence.effect(difference)
        gain = evidence.gain(row.candidate, subject)
        if effect in ("equal", "better") or (effect == "undecided" and gain >= -evidence.margin):
            found.append((gain, row.candidate, difference, effect))
    if not found:
        return None
    _, candidate, difference, effect = max(found, key=lambda one: one[0])
    return Alternative(candidate=candidate, against=subject, difference=difference, effect=effect)


def rounding_fact(evidence: Evidence, subject: Candidate) -> Rounding | None:
    row = evidence.rows[subject]
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
        effect=evidence.effect(change),
        time_ratio=ratio,
    )


def cost_fact(evidence: Evidence, subject: Candidate) -> Cost | None:
    row = evidence.rows[subject]
    if "float" not in row.cost:
        return None
    own, lower = row.cost["float"], row.cost.get("int8")
    same = [of for of in evidence.rows.values() if of.arm == row.arm and "float" in of.cost]
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


def stability_fact(summary: Sequence[Summary]) -> Stability:
    def counted(field: Literal["diverged", "failed", "int8_failed"]) -> dict[str, int]:
        return {
            f"{row.arm}-r{row.loops}": count for row in summary if (count := getattr(row, field))
        }

    return Stability(
        runs=sum(row.runs for row in summary),
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
