"""The first screen: the decision, what it costs and saves, how sure it is, where it is weak, what comes next."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TypeVar

from loopedge.report.pilot.wording import Wording
from loopedge.report.svg.dots import Dot, dots
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
from loopedge.study.judging.verdict import subject_of
from loopedge.study.options import UNLOOPED
from loopedge.study.result import PilotResult, Place

__all__ = ["first_screen", "statement_of"]

MOST_DOTS = 7
FAR = 3.0
"""Rows that stand further off than so many times the distance of model and baseline would squeeze the others."""

Kind = TypeVar("Kind", bound=Statement)


def first_screen(result: PilotResult, words: Wording) -> list[str]:
    """Return the lines of the first screen: at most 120 words and one chart."""
    decision = statement_of(result, Decision)
    outcome = decision.outcome if decision else "undecided"
    task = escape(_task_name(result))
    return [
        '<header class="first">',
        '<div class="answer">',
        f'<p class="question">{words("question", task=f"<b>{task}</b>")}</p>',
        f'<p class="outcome {outcome}">{escape(words.outcomes[outcome])}</p>',
        *(f'<p class="headline">{escape(text)}</p>' for text in _headline(result, words)),
        "<dl>",
        *(
            f"<dt>{escape(words(key))}</dt><dd>{escape(text)}</dd>"
            for key, text in _facts(result, words)
            if text
        ),
        "</dl>",
        "</div>",
        *_chart(result, words),
        "</header>",
    ]


def _task_name(result: PilotResult) -> str:
    """Return the name of the task, with the columns that it forecasts or labels."""
    task = result.task
    columns = task.get("targets") or [task.get("label")]
    named = ", ".join(str(column) for column in columns[:3] if column)
    return f"{task['name']} ({named})" if named else str(task["name"])


def statement_of(result: PilotResult, kind: type[Kind]) -> Kind | None:
    """Return the first statement of a kind."""
    return next((one for one in result.verdict.statements if isinstance(one, kind)), None)


def _headline(result: PilotResult, words: Wording) -> list[str]:
    """Return the sentence of the decision, and the comparison with the strongest baseline in short."""
    against = statement_of(result, AgainstBaseline)
    texts = [words.reason(result), _against(against, result, words) if against else ""]
    return [text for text in texts if text]


def _against(against: AgainstBaseline, result: PilotResult, words: Wording) -> str:
    text = words(
        "against",
        model=words.candidate(against.candidate),
        metric=result.metric,
        quality=words.quality(against.quality),
        baseline=words.baseline(against.baseline),
        value=words.score(against.value),
    )
    change = against.difference
    if change is None or change.low is None or change.high is None:
        return words("sentence", text=text)
    if against.effect in {"better", "worse"}:
        low, high = sorted((abs(change.low), abs(change.high)))
        gap = abs(change.mean)
    else:
        gap, low, high = change.mean, change.low, change.high
    key = f"against_{against.effect}"
    interval = words("interval", low=words.rounded(low), high=words.rounded(high))
    more = words(key, gap=words.rounded(gap), interval=interval)
    return words("sentence", text=words("clauses", first=text, second=more))


def _facts(result: PilotResult, words: Wording) -> Iterator[tuple[str, str]]:
    cost = statement_of(result, Cost)
    yield "cost", _cost(cost, words)
    if cost is not None:
        yield "saves", _saves(cost, words)
        yield "int8", _int8(cost, statement_of(result, Rounding), words)
    yield "sure", _sure(result, words)
    yield "weak", _weak(result, words)
    yield "next", next_text(result, words)


def _cost(cost: Cost | None, words: Wording) -> str:
    if cost is None:
        return words("cost_none")
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
        parts.append(words("cost_busy"))
    return words.joined(parts)


def _saves(cost: Cost, words: Wording) -> str:
    if cost.untied_bytes is None:
        return ""
    own, untied = words.size(cost.file_bytes), words.size(cost.untied_bytes)
    return words("saves_untied", file=own, untied=untied)


def _int8(cost: Cost, rounding: Rounding | None, words: Wording) -> str:
    if cost.int8_bytes is None or cost.int8_seconds is None:
        return words("int8_none")
    size, time = words.size(cost.int8_bytes), words.sample_time(cost.int8_seconds)
    parts = [words("int8_text", file=size, time=time)]
    if cost.int8_seconds > cost.seconds:
        parts.append(words("int8_slower"))
    if rounding is not None and rounding.effect == "worse":
        parts.append(words("int8_loss", share=words.percent(abs(rounding.share), digits=1)))
    return words.joined(parts)


def _sure(result: PilotResult, words: Wording) -> str:
    decision = statement_of(result, Decision)
    runs = runs_text(result, words)
    if decision is None or decision.sure is None:
        return words("sure_runs", runs=runs)
    share = words.probability(decision.sure)
    return words("sure_share", share=share, margin=result.margin.get("text", ""), runs=runs)


def runs_text(result: PilotResult, words: Wording) -> str:
    """Return over how many seeds, and test periods, the figures are."""
    seeds = words.count("seeds", int(result.design["seeds"]))
    origins = result.design.get("origins")
    return words("seeds_origins", seeds=seeds, origins=origins) if origins else seeds


def _weak(result: PilotResult, words: Wording) -> str:
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
    return words.joined(parts) or words("weak_none")


def next_text(result: PilotResult, words: Wording) -> str:
    """Return what would decide it, or what comes after it, in a few words."""
    step = statement_of(result, NextStep)
    if step is None:
        return ""
    decision, against = statement_of(result, Decision), statement_of(result, AgainstBaseline)
    model = words.candidate(decision.chosen) if decision and decision.chosen else ""
    text = words(
        f"next_{step.what.replace('-', '_')}",
        count=step.seeds if step.what == "more-seeds" else step.origins,
        margin=words.rounded(step.margin or 0.0),
        model=model,
        baseline=words.baseline(against.baseline) if against else "",
    )
    parts = [text]
    if step.seconds:
        parts.append(words("next_about", time=words.duration(step.seconds)))
    if step.command:
        parts.append(words("command_below"))
    return words.joined(parts)


def _chart(result: PilotResult, words: Wording) -> list[str]:
    """Draw the models and baselines that the decision is about, best first."""
    rows, far = _shown(result)
    if not rows:
        return []
    best_plain = _strongest(result)
    shown = [
        Dot(
            name=place_name(place, words),
            value=place.test or 0.0,
            spread=place.deviation,
            text=words.score(place.test),
            kind=_kind(place, result),
        )
        for place in rows
    ]
    better = words("higher" if result.higher_is_better else "lower")
    caption = words("first_caption", metric=result.metric, better=better)
    names = ", ".join(place_name(place, words) for place in far)
    beyond = f" {escape(words('off_chart', names=names))}" if far else ""
    level = None if best_plain is None else best_plain.test
    return [
        '<figure class="lead">',
        f"<figcaption>{escape(caption)}{beyond}</figcaption>",
        *dots(shown, level=level, name=caption, score=words.score),
        "</figure>",
    ]


def _shown(result: PilotResult) -> tuple[list[Place], list[Place]]:
    """Return the rows of the chart, best on the test split first, and those that stand too far off."""
    subject, plain = _subject(result), _strongest(result)
    scored = [place for place in result.leaderboard if place.test is not None]
    wanted = [place for place in (subject, plain) if place is not None]
    if subject is not None:
        wanted += [p for p in scored if p.arm == subject.arm][:1]
        same_arm = [p for p in scored if p.arm == subject.arm and p.loops is not None]
        wanted += sorted(same_arm, key=lambda p: p.loops or 0)[:1]
    wanted += [p for p in scored if p.arm in UNLOOPED]
    for arm in dict.fromkeys(p.arm for p in scored if p.kind == "looped"):
        wanted += [p for p in scored if p.arm == arm][:1]
    wanted += [p for p in scored if p.kind == "plain"]
    unique = list(dict.fromkeys(id(p) for p in wanted))
    rows = [next(p for p in wanted if id(p) == key) for key in unique]
    core = [p.test for p in (subject, plain) if p is not None and p.test is not None]
    if core:
        room = FAR * max(max(core) - min(core), 0.05 * max(map(abs, core)))
        near = [p for p in rows if min(core) - room <= (p.test or 0.0) <= max(core) + room]
    else:
        near = rows
    far = [p for p in rows if p not in near and p.kind != "plain"][:2]
    sign = -1.0 if result.higher_is_better else 1.0
    return sorted(near[:MOST_DOTS], key=lambda p: sign * (p.test or 0.0)), far


def _subject(result: PilotResult) -> Place | None:
    """Return the row of the model that the decision is about."""
    decision = statement_of(result, Decision)
    chosen = subject_of(result.verdict.choice, decision) if decision else None
    if chosen is None:
        return None
    found = (p for p in result.leaderboard if (p.arm, p.loops) == (chosen.arm, chosen.loops))
    return next((place for place in found if place.test is not None), None)


def _strongest(result: PilotResult) -> Place | None:
    """Return the row of the plain baseline that the model is held against."""
    against = statement_of(result, AgainstBaseline)
    plain: Sequence[Place] = [
        p for p in result.leaderboard if p.kind == "plain" and not p.upper_bound
    ]
    if against is not None:
        return next((p for p in plain if p.name == against.baseline), None)
    return next((p for p in plain if p.test is not None), None)


def _kind(place: Place, result: PilotResult) -> str:
    if place is _subject(result):
        return "chosen"
    return place.kind


def place_name(place: Place, words: Wording) -> str:
    """Return the name of a row of the leaderboard."""
    if place.arm is not None and place.loops is not None:
        return words.candidate({"arm": place.arm, "loops": place.loops})
    return words.baseline(place.name)
