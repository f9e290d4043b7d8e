"""From the runs of a pilot to its table rows and its verdict, in one call.

judge_runs(runs, margin=..., further=..., plan=...) -> Judgement
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loopedge.baselines.scores import BaselineScores
from loopedge.study.cost import Costs
from loopedge.study.design import Design, block_name
from loopedge.study.judging.choice import whole_table
from loopedge.study.judging.claims import Baseline, Claims, claim, evidence_of, strongest
from loopedge.study.judging.margin import Margin, make_margin
from loopedge.study.judging.next_step import Plan
from loopedge.study.judging.period import Windows
from loopedge.study.judging.statements import Statement
from loopedge.study.judging.summary import Summary, summarise, whole_values
from loopedge.study.judging.verdict import Verdict, judge
from loopedge.tasks.metrics import Metrics, Tally

__all__ = ["Judgement", "Runs", "judge_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What is judged.

    Args:
        design: Arms and loop counts.
        cells: Results of all runs.
        metric: Which one decides.
        higher_is_better: Its direction.
        baselines: Scores of the plain baselines by block (``s0``, ``s0-o1``).
        costs: Figures by arm and loop count; empty where nothing was profiled yet.
        tallies: By name of a run and by split, what each sample adds (``samples.npz``); a run may be missing, then the
            claim is over the seeds alone.
        metrics: `Task.metrics`; None: likewise.
        windows: By origin (``o0``, or empty where there is one test period) what `windows_of` says of the task; empty
            where each seed draws its own samples.
    """

    design: Design
    cells: Sequence[dict[str, Any]]
    metric: str
    higher_is_better: bool
    baselines: Mapping[str, Sequence[BaselineScores]] = field(default_factory=dict)
    costs: Costs = field(default_factory=dict)
    tallies: Mapping[str, Mapping[str, Tally]] = field(default_factory=dict)
    metrics: Callable[[Tally], Metrics] | None = None
    windows: Mapping[str, Windows | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Table rows, verdict, and what they rest on."""

    summary: list[Summary]
    verdict: Verdict
    baseline: Baseline | None
    claims: Claims | None
    margin: Margin


def judge_runs(
    runs: Runs,
    *,
    margin: str | float,
    further: Sequence[Statement] = (),
    plan: Plan | None = None,
) -> Judgement:
    """Return what the runs of a pilot say.

    Args:
        runs: All that there is of them.
        margin: As `PilotOptions.margin`.
        further: Statements of others.
        plan: How the pilot could go on.

    Raises:
        InputError: The margin cannot be read.
    """
    higher = runs.higher_is_better
    baseline = strongest(runs.baselines, runs.metric, higher_is_better=higher)
    claims = None if baseline is None else _claims(runs, baseline)
    samples = _samples(runs)
    resolved = make_margin(
        margin,
        reference=_fallback(runs) if baseline is None else baseline.value,
        name="the best model" if baseline is None else baseline.name,
        higher_is_better=higher,
        samples=samples,
    )
    summary = summarise(runs.design, runs.cells, runs.costs, runs.metric, claims)
    verdict = judge(
        summary,
        metric=runs.metric,
        higher_is_better=higher,
        margin=resolved,
        baseline=baseline,
        claims=claims,
        further=further,
        plan=plan,
    )
    return Judgement(
        summary=summary, verdict=verdict, baseline=baseline, claims=claims, margin=resolved
    )


def _claims(runs: Runs, baseline: Baseline) -> Claims | None:
    values = whole_values(runs.cells, "test", runs.metric)
    windows = {origin: of for origin, of in runs.windows.items() if of is not None}
    evidence = None
    table = whole_table(values)
    if runs.metrics is not None and windows and table is not None:
        names = {
            (cell["arm"], cell["loops"], block_name(cell["seed"], cell.get("origin"))): cell["name"]
            for cell in runs.cells
        }
        evidence = evidence_of(
            {key: {block: names[*key, block] for block in values[key]} for key in table[0]},
            runs.tallies,
            _tallies_of(runs, baseline),
            metrics=runs.metrics,
            metric=runs.metric,
        )
    return claim(
        values,
        baseline.values,
        evidence=evidence,
        windows=windows,
        bounded=runs.higher_is_better and 0 <= baseline.value <= 1,
    )


def _tallies_of(runs: Runs, baseline: Baseline) -> dict[str, Mapping[str, Tally]]:
    return {
        block: one.tallies  # type: ignore[misc]  # a split is a str
        for block, scored in runs.baselines.items()
        for one in scored
        if one.name == baseline.name
    }


def _samples(runs: Runs) -> int | None:
    return next((len(of.places) for of in runs.windows.values() if of is not None), None)


def _fallback(runs: Runs) -> float | None:
    """Return the best mean validation metric: what a share is of where there is no baseline."""
    found = [
        sum(of.values()) / len(of)
        for of in whole_values(runs.cells, "validation", runs.metric).values()
    ]
    return (max if runs.higher_is_better else min)(found, default=None)
