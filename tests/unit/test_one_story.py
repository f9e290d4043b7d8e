"""A pilot tells one story: hundreds of tables are drawn, and no two of its sentences contradict each other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loopedge.study.judging.judgement import Judgement, judge_runs
from loopedge.study.judging.statements import (
    AgainstBaseline,
    Alternative,
    Chosen,
    Decision,
    Encoding,
    MoreLoops,
    NextStep,
    Statement,
    Untied,
)
from loopedge.study.judging.statistics import Interval
from tests.unit.pilot_runs import runs_of

LOOPED, UNLOOPED = ("looped", "constant", "timestep"), ("untied", "narrow")
STARTS = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}
WHY = {
    "yes": {"loops"},
    "no": {"one-loop", "baseline", "baseline-as-good", "untied"},
    "undecided": {"seeds", "period", "splits", "few-seeds", "one-count", "nothing-finished"},
}


def drawn_table(number: int) -> tuple[dict[str, Any], Judgement]:
    """Return a pilot whose effects, noise, failures, margin and baseline are drawn, and what is said of it."""
    draw = np.random.default_rng(number)
    seeds = int(draw.choice([2, 3, 3, 5, 8]))
    loops = sorted(draw.choice([1, 2, 4, 8], size=draw.integers(1, 4), replace=False).tolist())
    arms = [arm for arm in LOOPED if draw.random() < 0.7] or ["looped"]
    deviation = float(draw.choice([0.0, 0.1, 1.0, 3.0]))
    higher = bool(draw.random() < 0.3)
    sign = 1 if higher else -1
    gains = {
        (arm, count): draw.normal(0, 2) * (draw.random() < 0.5) for arm in arms for count in loops
    }
    gains |= {
        (arm, loops[-1]): draw.normal(0, 3)
        for arm in ("elastic", *UNLOOPED)
        if loops[-1] > 1 and draw.random() < 0.4
    }
    common = draw.normal(0, 1, seeds) * (draw.random() < 0.3)
    tables = []
    for _ in range(2):
        period = draw.normal(0, 0.5) * (draw.random() < 0.3)
        tables.append(
            {
                key: [
                    20.0 + sign * gain + period + common[seed] + deviation * draw.normal()
                    for seed in range(seeds)
                ]
                for key, gain in gains.items()
            }
        )
    lost = draw.random() < 0.2
    values: Any = {
        key: [None if lost and draw.random() < 0.15 else value for value in of]
        for key, of in tables[0].items()
    }
    baseline = None if draw.random() < 0.1 else 20.0 + sign * float(draw.normal(-1, 2))
    margin = float(draw.choice([0.05, 0.5, 1.0, 2.0]))
    runs = runs_of(values, validation=tables[1], baseline=baseline, higher_is_better=higher)
    return values, judge_runs(runs, margin=margin)


def kinds(found: Judgement, kind: type[Statement]) -> list[Any]:
    return [one for one in found.verdict.statements if isinstance(one, kind)]


def contradictions(values: dict[Any, list[float | None]], found: Judgement) -> list[str]:
    """Return what a reader could not believe together."""
    verdict, margin = found.verdict, found.margin.value
    (decision,) = kinds(found, Decision)
    chosen, said = decision.chosen, []
    if verdict.headline.partition(":")[0] + ": " != STARTS[decision.outcome]:
        said.append("the headline has another outcome than the decision")
    if decision.why not in WHY[decision.outcome]:
        said.append(f"{decision.outcome} because of {decision.why}")
    if (verdict.recommended is None) != (chosen is None):
        said.append("recommended and chosen differ")
    if decision.outcome == "undecided" and chosen is not None:
        said.append("undecided, and a model is recommended")
    if decision.outcome == "yes" and chosen is None:
        said.append("yes, and nothing is recommended")
    against = kinds(found, AgainstBaseline)
    for one in against:
        said += _about_baseline(decision, one)
    for kind in (Chosen, AgainstBaseline, MoreLoops, NextStep, Alternative):
        if len(kinds(found, kind)) > 1:
            said.append(f"{kind.kind} is said twice")
    if chosen is None:
        return said
    row = next(row for row in found.summary if row.candidate == chosen)
    if not row.is_whole or any(value is None for value in values[chosen.arm, chosen.loops]):
        said.append("a model that lost a run is recommended")
    if chosen.arm in (*UNLOOPED, "elastic"):
        said.append(f"{chosen.arm} is recommended")
    if len(row.test) < 3:
        said.append("a model is recommended on fewer than three seeds")
    said += [text for one in kinds(found, MoreLoops) for text in _about_loops(chosen, one, margin)]
    said += [text for one in kinds(found, Encoding) for text in _about_arms(chosen, one, margin)]
    for one in kinds(found, Untied):
        better = one.effect == "better" and abs(one.difference.mean) > margin
        if better and "better" not in verdict.headline:
            said.append("a network without a loop wins, and the first sentence is silent")
    if kinds(found, NextStep)[0].what not in ("deploy", "compare-untied"):
        said.append("a model is recommended, and the next step is none that deploys it")
    return said


def _about_baseline(decision: Decision, one: AgainstBaseline) -> list[str]:
    said = []
    if decision.chosen is not None and one.candidate != decision.chosen:
        said.append("one model is recommended, and another is held against the baseline")
    if decision.chosen is not None and one.effect != "better":
        said.append(f"a model is recommended that is {one.effect} against the baseline")
    if decision.why == "baseline" and one.effect != "worse":
        said.append(f"the baseline wins, and the model is {one.effect}")
    if decision.why == "baseline-as-good" and one.effect != "equal":
        said.append(f"the baseline is as good, and the model is {one.effect}")
    if decision.outcome == "yes" and one.effect != "better":
        said.append("yes, and the baseline is not beaten")
    counts = one.difference is not None and one.difference.excludes_zero
    if one.effect in ("better", "worse") and not counts:
        said.append("beaten, and the interval says otherwise")
    return said


def _about_loops(chosen: Any, one: MoreLoops, margin: float) -> list[str]:
    beyond = one.difference is not None and abs(one.difference.mean) > margin
    if chosen.loops == one.few and one.effect == "better" and beyond:
        return ["the fewest loops are recommended, and more loops help"]
    if chosen.loops == one.many and one.effect in ("worse", "equal"):
        return [f"more loops are recommended, and they are {one.effect}"]
    return []


def _about_arms(chosen: Any, one: Encoding, margin: float) -> list[str]:
    beyond = one.difference is not None and abs(one.difference.mean) > margin
    if one.loops != chosen.loops:
        return ["arms are compared at a loop count that is not the recommended one"]
    if chosen.arm == one.arm and one.effect == "worse":
        return [f"{one.arm} is recommended, and it makes it worse"]
    if chosen.arm == one.against and one.effect == "better" and beyond:
        return [f"{one.against} is recommended, and {one.arm} helps"]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 100))
def test_no_sentence_contradicts_another(first: int) -> None:
    outcomes = set()
    for number in range(first, first + 100):
        values, found = drawn_table(number)
        assert contradictions(values, found) == [], number
        outcomes.add(found.verdict.outcome)
        for text in (found.verdict.headline, *found.verdict.sentences):
            assert text[0].isupper() or text[0].isdigit() or text.startswith("int8")
            assert text.endswith((".", ")"))
            assert "e-" not in text
            assert "None" not in text.replace("None of", "")
            assert "nan" not in text
    assert outcomes == {"yes", "no", "undecided"}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (AgainstBaseline, {"effect": "worse"}, "worse against the baseline"),
        (AgainstBaseline, {"difference": Interval(mean=-1, low=-3, high=1)}, "says otherwise"),
        (MoreLoops, {"effect": "equal"}, "more loops are recommended, and they are equal"),
        (Encoding, {"effect": "better"}, "looped is recommended, and timestep helps"),
        (Decision, {"outcome": "undecided", "why": "seeds"}, "undecided, and a model"),
        (Decision, {"chosen": None}, "yes, and nothing is recommended"),
        (Untied, {"effect": "better"}, "the first sentence is silent"),
        (NextStep, {"what": "take-baseline"}, "none that deploys it"),
    ],
)
def test_a_contradiction_would_be_found(
    kind: type[Statement], fields: dict[str, Any], words: str
) -> None:
    values: Any = {
        ("looped", 1): [8.0, 8.1, 8.2],
        ("looped", 4): [4.0, 4.1, 4.2],
        ("timestep", 1): [8.0, 8.1, 8.2],
        ("timestep", 4): [6.0, 6.1, 6.2],
        ("untied", 4): [6.0, 6.1, 6.2],
    }
    found = judge_runs(runs_of(values), margin=0.5)
    assert found.verdict.recommended == {"arm": "looped", "loops": 4}
    assert contradictions(values, found) == []
    statements = [
        replace(one, **fields) if isinstance(one, kind) else one for one in found.verdict.statements
    ]
    changed = replace(found, verdict=replace(found.verdict, statements=statements))
    assert words in "; ".join(contradictions(values, changed))
