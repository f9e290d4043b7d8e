"""What the first screen says beside the decision: cost, what is saved, int8, how sure it is, where it is weak, what comes next."""

from typing import TypeVar

from loopedge.report.pilot.wording import Wording
from loopedge.study.judging.statements import (
    AgainstBaseline,
    Cost,
    Decision,
    NextStep,
    NotConverged,
    Rounding,
    Stability,
    Statement,
)
from loopedge.study.result import PilotResult
from loopedge.study.words.figures import is_slower

__all__ = ["count_words", "first_facts", "next_text", "runs_text", "statement_of"]

Kind = TypeVar("Kind", bound=Statement)


def statement_of(result: PilotResult, kind: type[Kind]) -> Kind | None:
    """Return the first statement of a kind."""
    return next((one for one in result.verdict.statements if isinstance(one, kind)), None)


def first_facts(result: PilotResult, words: Wording, *, most_words: int) -> dict[str, str]:
    """Return what the first screen says beside the decision, under the keys of their names.

    Args:
        result: What the pilot found.
        words: Of the page.
        most_words: The least important parts are left out until it has no more.
    """
    cost = statement_of(result, Cost)
    facts = {
        "cost": _cost(cost, words),
        "saves": [] if cost is None else _saves(cost, words),
        "int8": [] if cost is None else _int8(cost, statement_of(result, Rounding), words),
        "sure": _sure(result, words),
        "weak": _weak(result, words),
        "next": next_text(result, words),
    }
    shown = {key: parts for key, parts in facts.items() if parts}
    names = sum(count_words(words(key)) for key in shown)
    while names + sum(count_words(" ".join(parts)) for parts in shown.values()) > most_words:
        longest = max(shown.values(), key=len)
        if len(longest) == 1:
            break
        longest.pop()
    return {key: words.joined(parts) for key, parts in shown.items()}


def count_words(text: str) -> int:
    """Return how many words a text has; signs between them are none."""
    return sum(any(letter.isalnum() for letter in part) for part in text.split())


def _cost(cost: Cost | None, words: Wording) -> list[str]:
    if cost is None:
        return [words("cost_none")]
    parts = [
        words(
            "cost_text",
            file=words.size(cost.file_bytes),
            memory=words.size(cost.memory_bytes),
            time=words.sample_time(cost.seconds),
        )
    ]
    if cost.time_ratio is not None and cost.fewest is not None:
        fewest = words.loops(cost.fewest)
        parts.append(words("cost_ratio", ratio=words.ratio(cost.time_ratio), fewest=fewest))
    if cost.busy:
        parts.insert(1, words("cost_busy"))
    return parts


def _saves(cost: Cost, words: Wording) -> list[str]:
    if cost.untied_bytes is None:
        return []
    own, untied = words.size(cost.file_bytes), words.size(cost.untied_bytes)
    return [words("saves_untied", file=own, untied=untied)]


def _int8(cost: Cost, rounding: Rounding | None, words: Wording) -> list[str]:
    if cost.int8_bytes is None or cost.int8_seconds is None:
        return [words("int8_none")]
    size, time = words.size(cost.int8_bytes), words.sample_time(cost.int8_seconds)
    parts = [words("int8_text", file=size, time=time)]
    if is_slower(cost.int8_seconds / cost.seconds):
        parts.append(words("int8_slower"))
    if rounding is not None and rounding.effect == "worse":
        parts.append(words("int8_loss", share=words.percent(abs(rounding.share), digits=1)))
    return parts


def _sure(result: PilotResult, words: Wording) -> list[str]:
    decision = statement_of(result, Decision)
    runs = runs_text(result, words)
    if decision is None or decision.sure is None:
        return [runs]
    share = words.probability(decision.sure)
    return [words("sure_share", share=share, margin=result.margin.get("text", "")), runs]


def runs_text(result: PilotResult, words: Wording) -> str:
    """Return over how many seeds, and test periods, the figures are: of what was judged, not of what was planned."""
    origins = result.design.get("origins")
    judged = result.verdict.choice.blocks // (origins or 1)
    seeds = words.count("seeds", judged or int(result.design["seeds"]))
    return words("seeds_origins", seeds=seeds, origins=origins) if origins else seeds


def _weak(result: PilotResult, words: Wording) -> list[str]:
    parts = []
    late, ended = statement_of(result, NotConverged), statement_of(result, Stability)
    if late is not None and late.runs:
        parts.append(words("weak_converged", count=late.runs, of=late.of))
    if ended is not None:
        for key, lost in (("weak_diverged", ended.diverged), ("weak_failed", ended.failed)):
            if lost:
                parts.append(words(key, count=sum(lost.values()), of=ended.runs))
        if ended.no_int8:
            parts.append(words("weak_int8", count=sum(ended.no_int8.values())))
    against = statement_of(result, AgainstBaseline)
    if against is not None and against.visible is not None:
        parts.append(words("weak_visible", value=words.rounded(against.visible)))
    return parts or [words("weak_none")]


def next_text(result: PilotResult, words: Wording) -> list[str]:
    """Return what would decide it, or what comes after it, in a few words."""
    step = statement_of(result, NextStep)
    if step is None:
        return []
    decision, against = statement_of(result, Decision), statement_of(result, AgainstBaseline)
    seeds = step.seeds or 0
    ending = f"_{'one' if seeds == 1 else 'many'}" if step.what == "more-seeds" else ""
    text = words(
        f"next_{step.what.replace('-', '_')}{ending}",
        count=seeds if step.what == "more-seeds" else step.origins,
        margin=words.rounded(step.margin or 0.0),
        model=words.candidate(decision.chosen) if decision and decision.chosen else "",
        baseline=words.baseline(against.baseline) if against else "",
    )
    about = [words("next_about", time=words.duration(step.seconds))] if step.seconds else []
    return [text, *about, *([words("command_below")] if step.command else [])]
